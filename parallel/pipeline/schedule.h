#pragma once
// Pipeline schedules as data: who computes what, in which order. A schedule is made by a generator (`MakeSchedule`), or
// written by hand (text.h). Nothing else in the code knows a schedule's name.
//
// A model of S stages runs on p ranks. Each of the m micro-batches goes through all stages of one replica of the model:
// F (forward), then back through B, or through I (input gradient) and later W (weight gradient). Most schedules have one
// replica; bidirectional ones have two, whose stages lie on the ranks in opposite directions. Values; no thread-safety of
// their own.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/plan/plan.h"

namespace strata {

struct Schedule {
  std::string name;
  int ranks = 1;          // p
  int chunks = 1;         // v: stages of one replica on a rank
  int micro_batches = 1;  // m, over all replicas
  int replicas = 1;
  std::vector<std::vector<int>> rank_of;  // [replica][stage] -> rank
  std::vector<std::vector<Action>>
      compute;  // [rank]: kF, kB, kI, kW in order; pairs with equal `overlap` are issued together

  int stages() const { return static_cast<int>(rank_of.empty() ? 0 : rank_of[0].size()); }  // of a replica
};

// Micro-batch i belongs to replica i % replicas, and is that replica's number i / replicas. (So no table is needed.)
inline int ReplicaOf(const Schedule& s, int micro_batch) { return micro_batch % s.replicas; }
inline int OrdinalOf(const Schedule& s, int micro_batch) { return micro_batch / s.replicas; }

struct ScheduleSpec {
  std::string name = "1f1b";
  int ranks = 1;
  int chunks = 0;  // 0: as many as is usual for the schedule, 1 or 2
  int micro_batches = 1;
  int group = 0;          // interleaved: micro-batches a chunk takes in a row; 0: ranks
  int replicas = 1;       // greedy: 1, or 2 in opposite directions. Of the others each has its own number
  double memory_cap = 0;  // greedy: activations a rank may hold, one being all its chunks of a replica; 0: 1.5 ranks
};

// Errors: InvalidArgument for an unknown name, and for (ranks, chunks, micro_batches) that the schedule cannot have, naming
// the nearest that it can. Nothing is rounded.
absl::StatusOr<Schedule> MakeSchedule(const ScheduleSpec& spec);

std::span<const std::string_view> ScheduleNames();

}  // namespace strata
