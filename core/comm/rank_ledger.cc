#include "core/comm/rank_ledger.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/env.h"
#include "core/base/philox.h"
#include "core/comm/communicator.h"

namespace strata {
namespace {

constexpr uint64_t kMagic = 0x7374726174611003;  // of this layout of the memory
constexpr int kTries = 1000;                     // a writer takes nanoseconds

int64_t Now() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

template <size_t n>
void Put(char (&to)[n], std::string_view text) {
  const size_t length = std::min(text.size(), n - 1);
  if (length > 0) std::memcpy(to, text.data(), length);
  std::memset(to + length, 0, n - length);
}
template <size_t n>
std::string Text(const char (&from)[n]) {
  return std::string(from, strnlen(from, n));
}

// Where process ids mean the same: of a container, or of the machine.
uint64_t PidSpace() {
  struct stat info {};
  return ::stat("/proc/self/ns/pid", &info) == 0 ? static_cast<uint64_t>(info.st_ino) : 0;
}

// As in /proc: R, S, T (stopped), ...; X where it is gone, also if its parent has not asked for it.
char StateOf(pid_t pid, uint64_t space) {
  if (pid == ::getpid() || space != PidSpace()) return 'R';
  const absl::StatusOr<std::string> stat = ReadKernelText(absl::StrFormat("/proc/%d/stat", pid));
  const size_t after = stat.ok() ? stat->rfind(')') : std::string::npos;  // the name before it may hold anything
  if (after == std::string::npos || after + 2 >= stat->size()) return 'X';
  const char state = (*stat)[after + 2];
  return state == 'Z' ? 'X' : state == 't' ? 'T' : state;
}

}  // namespace

template <typename T>
void Published<T>::Store(const T& value) {
  uint64_t words[kWords];
  std::memcpy(words, &value, sizeof(value));
  const uint64_t next = version_.load(std::memory_order_relaxed) + 1;
  for (size_t i = 0; i < kWords; ++i) words_[next % 2][i].store(words[i], std::memory_order_release);
  version_.store(next, std::memory_order_release);
}

template <typename T>
T Published<T>::Load() const {
  uint64_t words[kWords];
  for (int i = 0; i < kTries; ++i) {
    const uint64_t version = version_.load(std::memory_order_acquire);
    for (size_t w = 0; w < kWords; ++w) words[w] = words_[version % 2][w].load(std::memory_order_acquire);
    // A writer that touched these words has published the next version before.
    if (version_.load(std::memory_order_relaxed) == version) break;
  }
  T value;
  std::memcpy(&value, words, sizeof(value));
  return value;
}
template class Published<Doing>;

std::string ToString(const Doing& d) {
  std::string text = Text(d.what);
  if (d.step >= 0) absl::StrAppendFormat(&text, " step %d", d.step);
  if (d.scope[0] != 0) text += " in " + Text(d.scope);
  return text;
}

void Activity::Set(std::string_view what, int64_t step, std::string_view scope) {
  Put(now_.what, what);
  Put(now_.scope, scope);
  now_.step = step;
  now_.since_ns = Now();
  published_.Store(now_);
}

void Activity::Step(int64_t step, std::string_view scope) {
  Put(now_.scope, scope);
  now_.step = step;
  now_.since_ns = Now();
  published_.Store(now_);
}

void CommRecord::Progress(uint64_t begun, uint64_t ended) {
  begun_.store(begun, std::memory_order_release);
  ended_.store(ended, std::memory_order_release);
}

std::string CommRecord::name() const { return Text(name_); }

struct RankLedger::Header {
  std::atomic<uint64_t> magic;
  std::atomic<int64_t> ranks;
};
struct alignas(64) RankLedger::Slot {
  std::atomic<pid_t> pid{0};
  std::atomic<uint64_t> space{0};  // PidSpace() of the process
  Activity activity;
  CommRecord comms[kMaxComms];
};

// Memory of zeros is a ledger that nobody has entered, but for Doing::step, which Activity sets before it publishes.
RankLedger::RankLedger(int ranks, void* memory, size_t bytes, bool mapped)
    : ranks_(ranks), memory_(memory), bytes_(bytes), mapped_(mapped) {}

RankLedger::~RankLedger() {
  if (mapped_) {
    ::munmap(memory_, bytes_);
  } else {
    ::operator delete (memory_, std::align_val_t{64});
  }
}

RankLedger::Slot& RankLedger::slot(int rank) const {
  STRATA_CHECK(rank >= 0 && rank < ranks_);
  return reinterpret_cast<Slot*>(static_cast<std::byte*>(memory_) + 64)[rank];
}

std::shared_ptr<RankLedger> RankLedger::Make(int ranks) {
  const size_t bytes = 64 + sizeof(Slot) * static_cast<size_t>(ranks);
  void* const memory = ::operator new (bytes, std::align_val_t{64});
  std::memset(memory, 0, bytes);
  return std::shared_ptr<RankLedger>(new RankLedger(ranks, memory, bytes, false));
}

absl::StatusOr<std::shared_ptr<RankLedger>> RankLedger::Open(const std::string& name, int ranks) {
  static_assert(sizeof(Header) <= 64 && std::atomic<uint64_t>::is_always_lock_free);
  const auto failed = [&](const char* call) {
    return absl::UnavailableError(absl::StrFormat("shared memory %s: %s: %s", name, call, std::strerror(errno)));
  };
  const size_t bytes = 64 + sizeof(Slot) * static_cast<size_t>(ranks);
  const int file = ::shm_open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file < 0) return failed("shm_open");
  struct stat info {};
  if (::fstat(file, &info) != 0 || (info.st_size == 0 && ::ftruncate(file, static_cast<off_t>(bytes)) != 0)) {
    const absl::Status status = failed("ftruncate");
    ::close(file);
    return status;
  }
  const bool fits = info.st_size == 0 || info.st_size == static_cast<off_t>(bytes);
  void* const memory = fits ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  const int error = errno;
  ::close(file);
  errno = error;
  if (!fits) return absl::InvalidArgumentError(absl::StrFormat("shared memory %s is of another job", name));
  if (memory == MAP_FAILED) return failed("mmap");
  std::shared_ptr<RankLedger> ledger(new RankLedger(ranks, memory, bytes, true));
  auto& header = *static_cast<Header*>(memory);
  uint64_t magic = 0;
  int64_t size = 0;
  if ((!header.magic.compare_exchange_strong(magic, kMagic) && magic != kMagic) ||
      (!header.ranks.compare_exchange_strong(size, ranks) && size != ranks)) {
    return absl::InvalidArgumentError(absl::StrFormat("shared memory %s is of another job", name));
  }
  return ledger;
}

void RankLedger::Unlink(const std::string& name) { ::shm_unlink(name.c_str()); }

void RankLedger::Enter(int rank) {
  slot(rank).space = PidSpace();
  slot(rank).pid = ::getpid();
}
Activity& RankLedger::activity(int rank) { return slot(rank).activity; }
bool RankLedger::known(int rank) const { return rank >= 0 && rank < ranks_ && slot(rank).pid != 0; }

CommRecord* RankLedger::Connect(int rank, const CommSpec& spec) {
  for (CommRecord& record : slot(rank).comms) {
    if (record.key() != 0) continue;
    Put(record.name_, spec.name);
    record.issued_ = 0;
    record.Progress(0, 0);
    record.key_.store(KeyOf(spec), std::memory_order_release);
    return &record;
  }
  return nullptr;
}

const CommRecord* RankLedger::Find(int rank, uint64_t key) const {
  if (!known(rank)) return nullptr;
  for (const CommRecord& record : slot(rank).comms) {
    if (record.key() == key) return &record;
  }
  return nullptr;
}

const CommRecord* RankLedger::Unfinished(int rank, uint64_t except) const {
  if (!known(rank)) return nullptr;
  for (const CommRecord& record : slot(rank).comms) {
    if (record.key() != 0 && record.key() != except && record.ended() < record.issued()) return &record;
  }
  return nullptr;
}

std::string RankLedger::Describe(int rank) const {
  if (!known(rank)) return "is not known here";
  const Doing doing = slot(rank).activity.Get();
  const double seconds = static_cast<double>(Now() - doing.since_ns) * 1e-9;
  std::string text = doing.what[0] == 0 ? "has not said what it does"
                                        : absl::StrFormat("has been %s for %.1f s", ToString(doing), seconds);
  const pid_t pid = slot(rank).pid;
  const char state = StateOf(pid, slot(rank).space);
  if (state == 'T') absl::StrAppendFormat(&text, "; its process %d is stopped", pid);
  if (state == 'X') absl::StrAppendFormat(&text, "; its process %d has ended", pid);
  return text;
}

bool RankLedger::gone(int rank) const { return known(rank) && StateOf(slot(rank).pid, slot(rank).space) == 'X'; }

uint64_t KeyOf(const CommSpec& spec) {
  uint64_t key = HashName(spec.name);
  for (const int r : spec.ranks) {
    key = HashName({reinterpret_cast<const char*>(&r), sizeof(r)}, key);
  }
  return key == 0 ? 1 : key;
}

}  // namespace strata
