#pragma once
// Reverse-mode differentiation: the backward pass as ordinary nodes of the same graph.

#include <functional>
#include <span>

#include "absl/status/statusor.h"
#include "core/graph/graph.h"

namespace strata {

// `forward` plus its backward. The gradient of wrt[i] is the output "grad.<i>", absent where the loss does not depend on
// it. `seed`, the cotangent of `loss`, is usually the graph input "loss_scale" = 1 / valid tokens of the GLOBAL batch: the
// loader knows it before the step, so every split into micro-batches, ranks and stages adds up to one gradient.
// Values used several times get the sum of their gradients by `add` nodes, in order of use. Backward nodes are kInputGrad,
// or kWeightGrad where only gradients of parameters (reads) need them; Node::grad_of names each gradient's primal.
absl::StatusOr<Graph> Differentiate(const Graph& forward, Value loss, Value seed, std::span<const Value> wrt);

// For every parameter gradient output "grad.<i>" of wrt[i] = Read(parameter state): declares the accumulator state
// "grad.<state name>" (float32, or float64 for float64 parameters) and accumulates into it: state := state + gradient; on the
// first micro-batch the accumulating kernel overwrites. The outputs "grad.<i>" are dropped.
absl::StatusOr<Graph> AccumulateGradients(const Graph& graph, std::span<const Value> wrt);

// Replaces every node whose op has a Decompose() and for which `replace(op)` is true by its plain ops.
absl::StatusOr<Graph> DecomposeOps(const Graph& graph, const std::function<bool(const Op&)>& replace);

}  // namespace strata
