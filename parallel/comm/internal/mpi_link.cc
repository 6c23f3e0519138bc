#include "parallel/comm/internal/mpi_link.h"

#include <algorithm>
#include <set>
#include <thread>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "parallel/comm/internal/calls.h"
#include "parallel/comm/internal/hang_report.h"

namespace strata::internal {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kMaxMessage = int64_t{1} << 30;  // MPI counts in int
constexpr std::chrono::microseconds kSpin{50};     // before a waiting rank sleeps; there may be more ranks than cores
constexpr std::chrono::microseconds kSleep{50}, kLongSleep{500};
constexpr milliseconds kLongWait{50};                    // after it the longer sleep
constexpr milliseconds kDelivery{1'000};                 // longest wait for the messages of an abort
constexpr milliseconds kUntilLook{2'000}, kLook{1'000};  // for ranks whose processes have ended
constexpr size_t kMaxControl = 4096;
constexpr char kCause = 'C', kAsk = 'A', kAnswer = 'W';  // first byte of a control message

absl::Status MpiError(int code) {
  if (code == MPI_SUCCESS) return absl::OkStatus();
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  return absl::UnavailableError(absl::StrFormat("MPI: %s", text));
}

std::string Ranks(const std::set<int>& ranks) { return absl::StrJoin(ranks, ", "); }

// The ranks whose messages are missing; where only sends are left, those who do not take them.
std::set<int> LateRanks(const std::vector<MpiLink::Pending>& pending) {
  const bool receives = std::any_of(pending.begin(), pending.end(), [](const auto& p) { return p.receive; });
  std::set<int> late;
  for (const MpiLink::Pending& p : pending) {
    if (p.receive || !receives) late.insert(p.rank);
  }
  return late;
}

}  // namespace

// A rank that waits for one that waits itself is not the nearest to the cause, and should not be the first to give up. So
// when the deadline passes, those who are late are asked; if all of them wait too, they get another chance to say why.
class MpiLink::Patience {
 public:
  explicit Patience(milliseconds deadline)
      : deadline_(deadline), limit_(Clock::now() + deadline), look_(Clock::now() + kUntilLook) {}

  // OK while there is time. Under the link's lock.
  absl::Status Check(MpiLink& link, const std::vector<Pending>& pending, const CommSpec& spec,
                     absl::FunctionRef<std::string()> what) {
    if (Clock::now() >= look_) {
      look_ = Clock::now() + kLook;
      RETURN_IF_ERROR(LookForGone(link, pending, spec, what));
    }
    if (Clock::now() < limit_) return absl::OkStatus();
    const std::set<int> late = LateRanks(pending);
    if (stage_ == Stage::kWait) {
      link.answers_.clear();
      for (int r : late) link.SendControl(r, std::string(1, kAsk));
      return Next(Stage::kAsked, std::clamp(deadline_ / 10, milliseconds(50), milliseconds(1'000)));
    }
    std::set<int> silent;
    std::string waiting;
    for (int r : late) {
      const auto answer = link.answers_.find(r);
      if (answer == link.answers_.end()) {
        silent.insert(r);
      } else {
        waiting += absl::StrFormat("; rank %d waits too: %s", r, answer->second);
      }
    }
    if (silent.empty() && stage_ == Stage::kAsked) {
      return Next(Stage::kExtended, std::clamp(deadline_ / 2, milliseconds(500), milliseconds(5'000)));
    }
    const std::set<int>& blamed = silent.empty() ? late : silent;
    const std::vector<int> list(blamed.begin(), blamed.end());
    return absl::DeadlineExceededError(
        absl::StrFormat("%s: rank %s did not arrive within %d ms%s%s", what(), Ranks(blamed), deadline_.count(),
                        waiting, link.ledger_ == nullptr ? std::string() : WhatTheyDo(*link.ledger_, spec, list)));
  }

 private:
  enum class Stage : uint8_t { kWait, kAsked, kExtended };

  // Of a rank whose process has ended nothing will come.
  static absl::Status LookForGone(const MpiLink& link, const std::vector<Pending>& pending, const CommSpec& spec,
                                  absl::FunctionRef<std::string()> what) {
    for (const int r : LateRanks(pending)) {
      if (link.ledger_ == nullptr || !link.ledger_->gone(r)) continue;
      return absl::UnavailableError(
          absl::StrFormat("%s: rank %d is gone%s", what(), r, WhatTheyDo(*link.ledger_, spec, {{r}})));
    }
    return absl::OkStatus();
  }

  absl::Status Next(Stage stage, milliseconds more) {
    stage_ = stage;
    limit_ = Clock::now() + more;
    return absl::OkStatus();
  }

  const milliseconds deadline_;
  Clock::time_point limit_, look_;
  Stage stage_ = Stage::kWait;
};

MpiLink::MpiLink(int rank, int size, int first_tag, milliseconds deadline)
    : rank_(rank), size_(size), control_tag_(first_tag), deadline_(deadline) {}

absl::Status MpiLink::Send(const void* data, int64_t bytes, int rank, int tag, std::vector<Pending>& pending) {
  return Post(false, const_cast<void*>(data), bytes, rank, tag, pending);
}

absl::Status MpiLink::Receive(void* data, int64_t bytes, int rank, int tag, std::vector<Pending>& pending) {
  return Post(true, data, bytes, rank, tag, pending);
}

absl::Status MpiLink::Post(bool receive, void* data, int64_t bytes, int rank, int tag, std::vector<Pending>& pending) {
  const std::lock_guard lock(mutex_);
  tag += control_tag_ + 1;
  int64_t at = 0;
  do {  // an empty message is one too: its receiver may expect more
    const int part = static_cast<int>(std::min(kMaxMessage, bytes - at));
    void* p = At(data, at);
    MPI_Request& request = pending.emplace_back(Pending{MPI_REQUEST_NULL, rank, receive}).request;
    RETURN_IF_ERROR(MpiError(receive ? MPI_Irecv(p, part, MPI_BYTE, rank, tag, MPI_COMM_WORLD, &request)
                                     : MPI_Isend(p, part, MPI_BYTE, rank, tag, MPI_COMM_WORLD, &request)));
    at += part;
  } while (at < bytes);
  return absl::OkStatus();
}

absl::Status MpiLink::Test(std::vector<Pending>& pending) {
  size_t left = 0;
  absl::Status status;
  for (Pending& p : pending) {
    int done = 0;
    const int code = MPI_Test(&p.request, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) {
      status.Update(Annotate(MpiError(code), absl::StrFormat("rank %d", p.rank)));
    } else if (done == 0) {
      pending[left++] = p;
    }
  }
  pending.resize(left);
  return status;
}

void MpiLink::Forget(std::vector<Pending>& pending) {
  for (Pending& p : pending) {
    if (p.request == MPI_REQUEST_NULL) continue;
    if (p.receive) MPI_Cancel(&p.request);
    MPI_Request_free(&p.request);
  }
  pending.clear();
}

absl::Status MpiLink::Wait(std::vector<Pending>& pending, const CommSpec& spec, absl::FunctionRef<std::string()> what) {
  const Clock::time_point begun = Clock::now();
  Patience patience(deadline_);
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      absl::Status status = Test(pending);
      if (status.ok() && pending.empty()) return status;
      pending_ = &pending;
      what_ = &what;
      Pump();
      status.Update(cause_);
      if (status.ok()) status = patience.Check(*this, pending, spec, what);
      pending_ = nullptr;
      what_ = nullptr;
      if (!status.ok()) {
        Forget(pending);
        return status;
      }
    }
    const Clock::duration waited = Clock::now() - begun;
    if (waited < kSpin) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(waited < kLongWait ? kSleep : kLongSleep);
    }
  }
}

absl::Status MpiLink::error() {
  const std::lock_guard lock(mutex_);
  Pump();
  return cause_;
}

absl::Status MpiLink::Fail(const absl::Status& error) {
  const std::lock_guard lock(mutex_);
  const std::string text = absl::StrFormat("rank %d: %s", rank_, std::string(error.message()));
  End(error, absl::StatusCode::kUnavailable, text);
  return cause_;
}

void MpiLink::Abort(const absl::Status& cause) {
  STRATA_CHECK(!cause.ok());
  const std::lock_guard lock(mutex_);
  End(cause, cause.code(), std::string(cause.message()));
}

// The first cause stays, and only it is told.
void MpiLink::End(const absl::Status& cause, absl::StatusCode code, const std::string& text) {
  Pump();
  if (!cause_.ok()) return;
  cause_ = cause;
  std::string message = {kCause, static_cast<char>('A' + static_cast<int>(code))};
  message += text.substr(0, kMaxControl - message.size());
  for (int r = 0; r < size_; ++r) {
    if (r != rank_) SendControl(r, message);
  }
  const Clock::time_point limit = Clock::now() + kDelivery;
  while (!outgoing_.empty() && Clock::now() < limit) {
    Pump();
    std::this_thread::yield();
  }
}

// Takes in control messages, and drops those that are delivered. Under the lock. Errors of MPI are left to Wait().
void MpiLink::Pump() {
  for (auto o = outgoing_.begin(); o != outgoing_.end();) {
    int done = 0;
    const bool over = MPI_Test(&o->request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done != 0;
    o = over ? outgoing_.erase(o) : std::next(o);
  }
  while (true) {
    int found = 0, bytes = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, control_tag_, MPI_COMM_WORLD, &found, &status) != MPI_SUCCESS || found == 0) return;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    std::string message(static_cast<size_t>(bytes), '\0');
    if (MPI_Recv(message.data(), bytes, MPI_BYTE, status.MPI_SOURCE, control_tag_, MPI_COMM_WORLD, MPI_STATUS_IGNORE) !=
        MPI_SUCCESS) {
      return;
    }
    Handle(status.MPI_SOURCE, message);
  }
}

void MpiLink::Handle(int from, const std::string& message) {
  if (message.empty()) return;
  if (message[0] == kCause && message.size() >= 2 && cause_.ok()) {
    cause_ = absl::Status(static_cast<absl::StatusCode>(message[1] - 'A'), message.substr(2));
  }
  if (message[0] == kAsk && what_ != nullptr) SendControl(from, kAnswer + Waiting());
  if (message[0] == kAnswer) answers_[from] = message.substr(1);
}

void MpiLink::SendControl(int rank, const std::string& message) {
  Outgoing& o = outgoing_.emplace_back(Outgoing{message.substr(0, kMaxControl), MPI_REQUEST_NULL});
  const int bytes = static_cast<int>(o.text.size());
  if (MPI_Isend(o.text.data(), bytes, MPI_BYTE, rank, control_tag_, MPI_COMM_WORLD, &o.request) != MPI_SUCCESS) {
    outgoing_.pop_back();
  }
}

std::string MpiLink::Waiting() const {
  return absl::StrFormat("%s, for rank %s", (*what_)(), Ranks(LateRanks(*pending_)));
}

}  // namespace strata::internal
