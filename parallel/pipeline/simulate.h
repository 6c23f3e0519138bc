#pragma once
// Timed simulation, without a device. Deterministic.

#include "absl/status/statusor.h"
#include "parallel/pipeline/durations.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/timeline.h"

namespace strata {

// The compute order alone: an action starts when its rank is free and its inputs have arrived, a transfer between ranks
// takes latency + bytes / bandwidth and delays nothing else. O(actions).
// Errors: InvalidArgument for durations that do not fit; FailedPrecondition for a deadlock, naming what every rank waits for.
absl::StatusOr<Timeline> Simulate(const Schedule& schedule, const StageDurations& durations);

// What waits for what, of a rank's actions.
enum class Streams : uint8_t {
  kOne,           // everything in the order of the list, each action to its end: a rank of the CPU back end
  kCompute,       // compute apart from communication, which goes in the order of the list
  kEveryChannel,  // compute, collectives and each end of a channel apart, each in the order of the list
};

// The lowered lists: a transfer starts when the tensor is there, both ends have come to it, and the receiver's slot is
// free. A reduction starts when all its members have come to it, and the updates when all ranks have: they need the norm of
// the whole gradient. A rank's update takes as long as those of its stages. Errors: as above; InvalidArgument too where
// durations.edges are not one for each edge.
absl::StatusOr<Timeline> Simulate(const Schedule& schedule, const LoweredSchedule& lowered,
                                  const StageDurations& durations, Streams streams);

// Activations that a rank holds at its peak, counted in chunks: from F to B or W. [rank]
std::vector<int> PeakChunks(const Schedule& schedule);

// Mean duration of each stage's F, I, W in a measured (or simulated) timeline; B is divided as `like` divides it. What was
// not measured, and transfers, are those of `like`. Of a stage that has both B and I, `backward` is that of B.
StageDurations DurationsOf(const Timeline& timeline, StageDurations like);

}  // namespace strata
