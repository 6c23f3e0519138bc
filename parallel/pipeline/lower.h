#pragma once
// From the compute order of a schedule to all that each pipeline rank does in a step: receives and sends placed by simulated
// time, local copies, unshards and reshards (ZeRO-3), reductions, the update.
//
// All of it is one global order of events, a send and its receive being one event, a reduction of several ranks too; a
// rank's list is its part of that order. So a rank may go through its list one action at a time, every communication
// blocking until all its members are there, and nothing can deadlock. A transfer comes between what makes the tensor and
// what needs it at the time at which its two ranks wait least for each other (internal/meeting.h).

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/pipeline/durations.h"
#include "parallel/pipeline/schedule.h"

namespace strata {

struct LowerOptions {
  int zero = 0;             // 3: parameters may be sharded between uses
  int resident_stages = 0;  // with zero = 3: stages whose whole parameters a rank holds at a time, by kUnshard and
                            // kReshard; 0: no such actions (segments gather blocks themselves)
  // Stages that share a parameter (tied embeddings): {0, S - 1}. Their reductions meet, like those of replicas.
  std::vector<std::vector<int>> tied;
};

// Lists of actions. kF, kB, kI, kW: as in the schedule.
// kSend {replica, stage of the sender, micro_batch, edge}, kRecv {replica, stage of the receiver, micro_batch, edge}.
// kCopyLocal {replica, stage of the sender, micro_batch, edge}: between two stages of this rank.
// kUnshard, kReshard {stage}: of the rank's one copy. kReduce {replica, stage}: the stage's gradients are complete; over
// the data-parallel ranks, and over all ranks that hold this stage in another replica or a tied one. kUpdate: last.
// Neighbouring sends and receives carry equal non-zero `overlap`: they may be issued together, and need not be.
struct LoweredSchedule {
  std::vector<Edge> edges;                   // between ranks of the pipeline
  std::vector<std::string> channels;         // communicators, one a (from, to, kind): "edge 2->3 activation"
  std::vector<int> channel_of;               // [edge]: of channels; -1 within a rank
  std::vector<std::vector<Action>> actions;  // [rank]
  // Micro-batches that a stage holds at a time, [replica][stage]: from the arrival of the input, or F where there is none,
  // to B or W. Micro-batch i uses slot SlotOf(i); ValidateLowered proves that no two that are alive share one.
  std::vector<std::vector<int>> slots;
  // The same from F on, for what F leaves to its backward apart from the input: the schedule's peak in flight. (One fewer,
  // mostly: the next input arrives while its stage is still full.)
  std::vector<std::vector<int>> activation_slots;
  std::vector<std::vector<int>> gradient_slots;  // the same for the output gradient, from its arrival to B or W
  // [stage]: stages of equal number are reduced together: replicas of one stage always, tied stages too.
  std::vector<int> reduce_group;
};

// Errors: those of ValidateSchedule; InvalidArgument for durations or options that do not fit the schedule.
absl::StatusOr<LoweredSchedule> LowerSchedule(const Schedule& schedule, const StageDurations& durations,
                                              const LowerOptions& options = {});

// Slot of an action on a stage.
inline int SlotOf(const Schedule& s, int micro_batch, int slots) { return OrdinalOf(s, micro_batch) % slots; }

}  // namespace strata
