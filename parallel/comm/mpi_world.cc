#include "parallel/comm/mpi_world.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/base/status.h"
#include "core/comm/rank_ledger.h"
#include "parallel/comm/internal/groups.h"
#include "parallel/comm/internal/held_record.h"
#include "parallel/comm/internal/mpi_group.h"
#include "parallel/comm/internal/mpi_link.h"

namespace strata {
namespace {

constexpr int kMaxCommunicators = 1000;  // of a run; MPI promises 32767 tags
constexpr int kTagsOfRun = 4 * kMaxCommunicators + 1;

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(internal::MpiLink& link, const CommSpec& spec, int index)
      : link_(link), group_(link, spec, index), record_(link.ledger(), link.rank(), spec) {}

  const CommSpec& spec() const override { return group_.spec(); }
  absl::Status Issue(std::span<const Collective> calls, Stream) override {
    if (closed_) return absl::FailedPreconditionError(absl::StrFormat("communicator %s is closed", spec().name));
    return record_.Around([&] { return group_.Issue(calls); });
  }
  absl::Status Poll() override { return link_.error(); }
  void Abort(const absl::Status& cause) override { link_.Abort(cause); }
  absl::Status Close() override {
    if (closed_) return absl::OkStatus();
    closed_ = true;
    const Collective barrier;
    return record_.Around([&] { return group_.Issue({&barrier, 1}); });
  }

 private:
  internal::MpiLink& link_;
  internal::MpiGroup group_;
  internal::HeldRecord record_;
  bool closed_ = false;
};

CommSpec Everyone(int size) {
  CommSpec spec{"world", {}};
  for (int r = 0; r < size; ++r) spec.ranks.push_back(r);
  return spec;
}

// "0,2\ndp", and back.
std::string ToText(const CommSpec& spec) { return absl::StrJoin(spec.ranks, ",") + "\n" + spec.name; }
CommSpec FromText(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('\n', 1));
  CommSpec spec{parts.second, {}};
  for (const auto& word : absl::StrSplit(parts.first, ',', absl::SkipEmpty())) {
    int rank = -1;
    if (absl::SimpleAtoi(word, &rank)) spec.ranks.push_back(rank);
  }
  return spec;
}

class MpiWorld final : public World {
 public:
  explicit MpiWorld(internal::MpiLink& link) : link_(link), all_(link, Everyone(link.size()), 0) {}

  int rank() const override { return link_.rank(); }
  int size() const override { return link_.size(); }

  absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommSpec& spec) override {
    const int index = next_++;
    if (index >= kMaxCommunicators) return absl::ResourceExhaustedError("too many communicators");
    const absl::Status agreed = Agree(spec);
    if (!agreed.ok()) return Annotate(agreed, absl::StrFormat("connect %s", internal::ToString(spec)));
    if (std::find(spec.ranks.begin(), spec.ranks.end(), rank()) == spec.ranks.end()) {
      return std::unique_ptr<Communicator>();
    }
    return std::make_unique<MpiCommunicator>(link_, spec, index);
  }

  RankLedger* ledger() override { return link_.ledger().get(); }

  absl::Status Barrier() {
    const Collective barrier;
    return all_.Issue({&barrier, 1});
  }

  // Rank 0 gives the ledger a name; who cannot open it goes without.
  absl::Status OpenLedger(const std::string& given) {
    std::array<char, 64> name{};
    if (rank() == 0) {
      const int64_t now = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
      const std::string text = given.empty() ? absl::StrFormat("/strata-%d-%d", ::getpid(), now) : given;
      std::copy_n(text.begin(), std::min(text.size(), name.size() - 1), name.begin());
    }
    const Collective tell{.kind = Collective::kBroadcast,
                          .dtype = DType::kU8,
                          .count = static_cast<int64_t>(name.size()),
                          .peer = 0,
                          .in = name.data(),
                          .out = name.data()};
    RETURN_IF_ERROR(all_.Issue({&tell, 1}));
    absl::StatusOr<std::shared_ptr<RankLedger>> ledger = RankLedger::Open(name.data(), size());
    if (!ledger.ok()) ledger = RankLedger::Make(size());
    (*ledger)->Enter(rank());
    link_.set_ledger(*std::move(ledger));
    RETURN_IF_ERROR(Barrier());  // all of this machine have it open
    RankLedger::Unlink(name.data());
    return absl::OkStatus();
  }

 private:
  // Every rank learns what all of them named, and comes to the same verdict.
  absl::Status Agree(const CommSpec& spec) {
    const std::string text = ToText(spec);
    int64_t width = static_cast<int64_t>(text.size());
    const Collective widest{Collective::kAllReduce, ReduceOp::kMax, DType::kI64, 1, -1, &width, &width};
    RETURN_IF_ERROR(all_.Issue({&widest, 1}));
    std::string mine = text, texts(width * size(), '\0');
    mine.resize(width, '\0');
    const Collective gather{Collective::kAllGather, {}, DType::kU8, width, -1, mine.data(), texts.data()};
    RETURN_IF_ERROR(all_.Issue({&gather, 1}));
    std::vector<CommSpec> named;
    for (int r = 0; r < size(); ++r) {
      const std::string padded = texts.substr(r * width, width);
      named.push_back(FromText(padded.substr(0, padded.find('\0'))));
    }
    return internal::CheckRound(named);
  }

  internal::MpiLink& link_;
  internal::MpiGroup all_;
  int next_ = 1;
};

absl::Status Check(int code, const char* what) {
  return code == MPI_SUCCESS ? absl::OkStatus() : absl::UnavailableError(absl::StrFormat("%s: error %d", what, code));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MpiSession>> MpiSession::Start() {
  int level = 0;
  RETURN_IF_ERROR(Check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level), "MPI_Init_thread"));
  if (level < MPI_THREAD_SERIALIZED) return absl::UnavailableError("this MPI does not support MPI_THREAD_SERIALIZED");
  RETURN_IF_ERROR(Check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
  std::unique_ptr<MpiSession> session(new MpiSession);
  RETURN_IF_ERROR(Check(MPI_Comm_rank(MPI_COMM_WORLD, &session->rank_), "MPI_Comm_rank"));
  RETURN_IF_ERROR(Check(MPI_Comm_size(MPI_COMM_WORLD, &session->size_), "MPI_Comm_size"));
  return session;
}

absl::Status MpiSession::Finish() { return Check(MPI_Finalize(), "MPI_Finalize"); }

absl::Status RunMpiRank(MpiSession& session, const std::function<absl::Status(World&)>& body, MpiWorldOptions options) {
  if (session.next_tag_ + kTagsOfRun > 32767) return absl::ResourceExhaustedError("too many runs of one MPI session");
  internal::MpiLink link(session.rank(), session.size(), session.next_tag_, options.deadline);
  session.next_tag_ += kTagsOfRun;
  MpiWorld world(link);
  absl::Status status = world.OpenLedger(options.ledger);
  if (status.ok()) status = body(world);
  if (status.ok()) status = world.Barrier();
  if (status.ok()) return status;
  status = Annotate(status, absl::StrFormat("rank %d", session.rank()));
  link.Abort(absl::UnavailableError(status.message()));
  return status;
}

}  // namespace strata
