#pragma once
// The saves of a run. At a save each rank copies what it saves into one of two host buffers and trains on; threads write the
// buffers, and rank 0 commits. The training thread never waits for a disk, but where it asks to.
//
// A save has phases, which all ranks leave at the same step boundary: rank 0's thread makes the folder; every rank's thread
// writes its file; rank 0's thread commits. So threads need no communicator: what they made is exchanged in between.

#include <array>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/commit.h"
#include "checkpoint/writer.h"
#include "core/base/env.h"
#include "core/comm/communicator.h"
#include "core/exec/executor.h"
#include "launch/job/compile.h"
#include "launch/job/worker.h"

namespace strata {

inline constexpr int kSaveBuffers = 2;  // one being written, one filled at the next save

// Bytes of host memory, by rank, of the buffers that a job's saver reserves: none where checkpoint.async is off, or where
// it saves at the end only.
std::vector<int64_t> SaveBufferBytes(const Job& job, std::span<const Plan> plans);

struct SaveReport {
  int64_t step = 0;
  std::string path;
  double stall_s = 0;  // for which training stood still: the copy
  double save_s = 0;   // from there to the commit
};

// One a rank; the calls marked collective by all ranks in the same order. An error of one rank's disk is returned by all,
// with the file's name; the save that had it is not committed, the ones before it stay.
class Saver {
 public:
  struct Deps {
    Env& env;
    const Job& job;
    std::span<const Plan> plans;  // of all ranks
    Executor& executor;
    Device& device;
    Communicator& control;  // of all ranks; used on the calling thread
    int rank;
  };
  static absl::StatusOr<std::unique_ptr<Saver>> Create(const Deps& deps);  // before step 1: reserves the buffers

  bool has_buffers() const { return buffers_[0] != nullptr; }

  // Begins a save of the states as they are: copies them. False, the same on all ranks, where both buffers hold saves that
  // are not committed yet: this one is left out. Needs buffers.
  absl::StatusOr<bool> Start(int64_t step, int64_t next_sample);

  // At every step boundary: the maximum of all ranks' Progress() tells Advance() whether to move on. Advance() is collective
  // where it does, and does not wait for disks. Returns a save that it found committed.
  enum : int64_t { kReady = 0, kBusy = 1, kFailed = 2 };
  int64_t Progress();
  absl::StatusOr<std::optional<SaveReport>> Advance(int64_t progress);

  // Collective: waits until every save that was started is committed; returns them.
  absl::StatusOr<std::vector<SaveReport>> Finish();

  // Collective: Finish(), then a save of the states as they are, waited for, through no buffer. Returns all.
  absl::StatusOr<std::vector<SaveReport>> SaveNow(int64_t step, int64_t next_sample);

 private:
  using Clock = std::chrono::steady_clock;
  enum class Phase : uint8_t { kOpen, kWrite, kCommit };
  struct Save {
    SaveReport report;
    int64_t next_sample = 0;
    std::vector<SavedBox> boxes;
    int buffer = -1;              // none: a save that is waited for
    std::vector<std::byte> copy;  // where the host cannot read the states, and there are no buffers
    Clock::time_point copied;
  };

  explicit Saver(const Deps& deps);
  absl::Status CopyStates(std::byte* to);
  std::vector<SavedBox> BoxesIn(const std::byte* copy) const;
  void Push(Save save);
  void Open();  // begins the phases of the first save
  void Write();
  void Commit(const std::vector<std::string>& records);

  const Deps deps_;
  const std::string root_;
  std::vector<PlannedState> states_;  // what this rank saves
  int64_t bytes_ = 0;                 // of a copy of them
  std::array<std::byte*, kSaveBuffers> buffers_{};
  std::deque<Save> saves_;  // the first is under way
  Phase phase_ = Phase::kOpen;
  // Of the phase under way, written by the worker:
  std::string folder_;
  ShardRecord record_;
  std::string path_;
  Worker worker_;  // last: it ends before what its tasks use
};

}  // namespace strata
