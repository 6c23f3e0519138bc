#pragma once
// Stages that take alike long.

#include "absl/status/statusor.h"
#include "parallel/pipeline/costs.h"
#include "parallel/pipeline/durations.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/stage_layout.h"

namespace strata {

// The layout whose slowest stage is fastest; of several, one that cuts the fewest blocks, and of these the most even one. A
// block is cut only where no layout of whole blocks has nearly as fast a slowest stage. Errors: InvalidArgument where there are more
// stages than parts of blocks + 2.
absl::StatusOr<StageLayout> BalancedLayout(const ModelCosts& costs, int num_stages);

// The layout with which the schedule's simulated step is shortest, of whole blocks, of few cut blocks, and of even stages, and
// from there on by moving the end of one stage at a time. Stages that one rank has in turn need not be alike, so the slowest
// stage alone does not tell. Looks no further for what gains less than 0.5%, and not longer than about a second. Errors: as
// above, and those of Simulate.
absl::StatusOr<StageLayout> FastestLayout(const ModelCosts& costs, const Schedule& schedule);

// In the unit of the costs, of which backward takes twice as many as forward; in the head too, though it is there in F. Transfers
// take no time.
StageDurations ModelledDurations(const StageLayout& layout, const ModelCosts& costs);

// All parts of blocks alike, and nothing else.
ModelCosts EvenCosts(const ModelBlocks& model);

// Embedding, parts of blocks, and head in stages of their own.
int MostStages(const ModelBlocks& model);

}  // namespace strata
