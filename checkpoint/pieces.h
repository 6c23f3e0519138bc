#pragma once
// From the states of plans to boxes: what of the model's tensors lies where in a rank's memory, and which rank saves it.

#include <span>
#include <vector>

#include "checkpoint/box.h"
#include "core/plan/plan.h"

namespace strata {

// Whether a checkpoint holds the state: parameters, master weights and moments, each by parameter. Flat states ("bucket.",
// which those are views of), gradients and buffers are not held.
bool IsSaved(const PlannedState& state);

// A part of a state: a box of the model's tensor whose elements lie in a row in the rank's memory.
struct Piece {
  TensorBox box;
  int64_t byte_offset = 0;  // from PlannedState::ref
};

// Pieces that cover the elements which the state stores, each once, in memory order; padding, beyond model_shape, is in
// none. A tensor of rank r has at most 2r - 1 pieces, but where padding ends another dim than the first: a piece a row.
std::vector<Piece> PiecesOf(const PlannedState& state);

// What each rank saves: its states that a checkpoint holds, `first`, `count` and `ref` narrowed to elements that no lower
// rank stores (a state in several parts where need be). Over all ranks every element once, whatever makes replicas of it:
// axes of the mesh, or stages that share a parameter. Replicas must be cut into equal local boxes; their ranges may differ.
std::vector<std::vector<PlannedState>> StatesToSave(std::span<const Plan> plans);

}  // namespace strata
