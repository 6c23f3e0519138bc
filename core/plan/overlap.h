#pragma once
// What of a step runs beside its computing, and when: Program::issues.
//
// The order of two steps that touch the same bytes, one of them writing, never changes, so every value is what the order
// of the actions makes it. Within that:
// - launches and copies stay in order on the stream "compute";
// - a collective is issued as soon as all that it needs has been issued, on the stream of its communicator, and the sum that ends
//   an exchange behind it; launches that use its result for what only later actions read (such as adding up shards of gradients) follow it there. So a bucket
//   is reduced behind the backward that completes it, and weights are gathered where their memory is free. Collectives
//   whose members run other actions (pipeline stages), and transfers over edges, stay behind the actions before theirs;
// - updates of states that nothing of the step reads any more run on a stream "update" of low priority, beside the next
//   run of the program.
// Streams wait for each other's events only where no other wait implies it.

#include <span>

#include "core/plan/plan.h"

namespace strata {

// Decides the issues of every program, and adds streams and events. `alike`: the ranks that run the same actions as this
// one, itself included.
void OverlapSteps(Plan& plan, std::span<const int> alike);

}  // namespace strata
