#pragma once
// Loading the states of a job from a checkpoint of any layout, and of another floating-point dtype.

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "checkpoint/reader.h"
#include "core/plan/plan.h"
#include "core/plan/weight_states.h"

namespace strata {

// The tensor that a state is loaded from, or null. A parameter's own, where its dtype is the state's; else the parameter's
// most exact values: its master weights, where the checkpoint has some, or the parameter's with lower halves that it has. Master
// weights that it has not are the parameter's values. Moments are their own. Upper halves come from float32 masters, if there
// are some: of those the parameter's own may be rounded otherwise.
const TensorRecord* SourceOf(const CheckpointReader& reader, const PlannedState& state,
                             LiveWeights live = LiveWeights::kNearestEven);

// Whether the checkpoint has all that the plans of a job's ranks need. Errors: InvalidArgument that names every tensor that
// is missing or of another shape, and for training also those that the job lacks; for training an optimizer of another
// type, or none.
enum class LoadFor : uint8_t { kTraining, kForward };
absl::Status CheckLoads(const CheckpointReader& reader, std::span<const Plan> plans, LoadFor purpose);

// Fills `out`, the state's `count` elements, from its source, converted (bf16 as `live` says); what is padding becomes
// zero. Errors: those of CheckpointReader::Read; NotFound without a source.
absl::Status LoadState(CheckpointReader& reader, const PlannedState& state, std::span<std::byte> out,
                       LiveWeights live = LiveWeights::kNearestEven);

}  // namespace strata
