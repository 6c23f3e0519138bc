#pragma once
// What every schedule must hold, whoever made it. Errors say which rule, which rank, which action.

#include "absl/status/status.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/schedule.h"

namespace strata {

// Of the compute order:
//  - every stage of every replica has one rank, every rank `chunks` stages a replica;
//  - for each stage and each micro-batch of its replica: one F, then one B, or one I and then one W, on that rank;
//  - overlapped actions are neighbouring pairs of different stages or micro-batches;
//  - list order and data edges have no cycle.
// Errors: InvalidArgument; FailedPrecondition for a cycle.
absl::Status ValidateSchedule(const Schedule& schedule);

// Of the lowered lists:
//  - the compute order is the schedule's; every F and B comes after its input has arrived, every send and copy after what
//    it sends was computed, and every boundary is crossed once a micro-batch, each way;
//  - sends and receives match one to one, and both ends of a channel see the same order;
//  - no two micro-batches that are alive on a stage share a slot (SlotOf), nor a gradient slot, nor an activation slot;
//  - compute only while the stage is unsharded, at most resident_stages of them, none at the end;
//  - one kReduce a stage, after its last B or W; kUpdate last, once;
//  - executed action by action, and with groups issued together, nothing locks.
// Errors: Internal: LowerSchedule made it.
absl::Status ValidateLowered(const Schedule& schedule, const LoweredSchedule& lowered, const LowerOptions& options);

}  // namespace strata
