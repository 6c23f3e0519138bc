#pragma once
// What each rank of a job does, for those who wonder why it does not come: they read it without its help, so also of a rank
// that hangs, was stopped or was killed. Ranks that are threads share ordinary memory; processes of one machine share a
// segment of it. Of a rank on another machine nothing is known.
//
// Each rank writes its own part, without locks, allocation or system calls but for the clock.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/statusor.h"

namespace strata {

struct CommSpec;

// A value that one thread writes and others read, in other processes too. There are two places for it, written in turn: a writer
// that dies in the middle leaves the value before.
template <typename T>
class Published {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(uint64_t) == 0);

 public:
  void Store(const T& value);
  T Load() const;

 private:
  static constexpr size_t kWords = sizeof(T) / sizeof(uint64_t);
  std::atomic<uint64_t> version_{0};  // values written; the last one is in place version_ % 2
  std::atomic<uint64_t> words_[2][kWords]{};
};

struct Doing {           // texts end with a zero, cut where they are too long
  char what[64] = {};    // "issuing train F0.3", "reading the data of step 7"; empty: nothing said
  char scope[88] = {};   // of a step of the plan, or empty
  int64_t step = -1;     // of the action, from 0; -1: none
  int64_t since_ns = 0;  // steady clock
  bool operator==(const Doing&) const = default;
};
std::string ToString(const Doing& d);  // "issuing train F0.3 step 12 in blocks.5.mlp"; "" where nothing is said

// Of one rank. Written by its issuing thread.
class Activity {
 public:
  void Set(std::string_view what, int64_t step = -1, std::string_view scope = {});
  void Step(int64_t step, std::string_view scope);  // within what Set() said
  const Doing& mine() const { return now_; }        // for the writer
  Doing Get() const { return published_.Load(); }   // for others

 private:
  Doing now_;
  Published<Doing> published_;
};

// How far a rank is in one communicator. A call is one Issue().
class CommRecord {
 public:
  void Issue() { issued_.store(issued_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }
  // `begun`: the first calls that the device came to; `ended`: those that it has done. Equal where Issue() itself waits.
  void Progress(uint64_t begun, uint64_t ended);
  void End() { Progress(issued(), issued()); }
  void Free() { key_.store(0, std::memory_order_release); }  // the communicator is closed

  uint64_t issued() const { return issued_.load(std::memory_order_acquire); }
  uint64_t begun() const { return begun_.load(std::memory_order_acquire); }
  uint64_t ended() const { return ended_.load(std::memory_order_acquire); }
  uint64_t key() const { return key_.load(std::memory_order_acquire); }  // KeyOf(spec); 0: not in use
  std::string name() const;

 private:
  friend class RankLedger;
  std::atomic<uint64_t> key_{0}, issued_{0}, begun_{0}, ended_{0};
  char name_[48] = {};
};

class RankLedger : public std::enable_shared_from_this<RankLedger> {
 public:
  static constexpr int kMaxComms = 64;  // of a rank; what is beyond is not recorded

  static std::shared_ptr<RankLedger> Make(int ranks);  // of threads
  // A segment of shared memory ("/strata-1234"), made by the first process that opens it. It goes with the last process that
  // has it open, once Unlink() took away the name. Errors: Unavailable; InvalidArgument where it is of another job.
  static absl::StatusOr<std::shared_ptr<RankLedger>> Open(const std::string& name, int ranks);
  static void Unlink(const std::string& name);

  ~RankLedger();
  RankLedger(const RankLedger&) = delete;
  RankLedger& operator=(const RankLedger&) = delete;

  int size() const { return ranks_; }
  void Enter(int rank);  // this process runs it
  Activity& activity(int rank);
  // A record of the rank's part in `spec`, at 0 calls; null where there is no room for more.
  CommRecord* Connect(int rank, const CommSpec& spec);

  // For others.
  bool known(int rank) const;  // has entered, on this machine
  bool gone(int rank) const;   // was known, and its process has ended
  // Its record of the communicator with this key; null if it has none.
  const CommRecord* Find(int rank, uint64_t key) const;
  // Some communicator of the rank with calls that have not ended, but not `except`; null if there is none.
  const CommRecord* Unfinished(int rank, uint64_t except) const;
  // "has been reading the data of step 7 for 61.2 s; its process 1234 is stopped"; "is not known here"
  std::string Describe(int rank) const;

 private:
  struct Slot;
  struct Header;
  RankLedger(int ranks, void* memory, size_t bytes, bool mapped);
  Slot& slot(int rank) const;

  const int ranks_;
  void* const memory_;
  const size_t bytes_;
  const bool mapped_;
};

uint64_t KeyOf(const CommSpec& spec);  // never 0

}  // namespace strata
