#pragma once
// Reverse-mode differentiation: the backward pass as ordinary nodes of the same graph.

#include <functional>
#include <map>
#include <span>

#include "absl/status/statusor.h"
#include "core/graph/builder.h"
#include "core/graph/graph.h"

namespace strata {

// `forward` plus its backward. The gradient of wrt[i] is the output "grad.<i>", absent where the loss does not depend on
// it. `seed`, the cotangent of `loss`, is usually the graph input "loss_scale" = 1 / valid tokens of the GLOBAL batch: the
// loader knows it before the step, so every split into micro-batches, ranks and stages adds up to one gradient.
// Values used several times get the sum of their gradients by `add` nodes, in reverse order of use; neighbours that ops of one
// kind make are summed first, so that several products of one x, sharded, meet one collective. Backward nodes are kInputGrad,
// or kWeightGrad where they only make gradients of `wrt`; Node::grad_of names each gradient's primal.
absl::StatusOr<Graph> Differentiate(const Graph& forward, Value loss, Value seed, std::span<const Value> wrt);

// The same from given gradients of any values of `forward`, as those that another pipeline stage sends.
using Gradients = std::map<Value, Value>;
absl::StatusOr<Graph> Differentiate(const Graph& forward, Gradients grads, std::span<const Value> wrt);

// For every gradient output "grad.<i>", that of the parameter params[i]: declares the accumulator state
// "grad.<state name>" (AccumulatorOf the parameter's dtype) and, right after the gradient's node and in its phase,
// state := accumulate(state, gradient); on the first micro-batch that kernel overwrites. The outputs "grad.<i>" are dropped.
absl::StatusOr<Graph> AccumulateGradients(const Graph& graph, std::span<const StateId> params);

// Gradients kept in bf16, of a graph of plain ops whose program has one micro-batch: the accumulators of bf16 parameters become
// bf16, but for those whose gradient is a sum of several (a tied weight's, or that of a head in chunks), which adds up in place
// in f32. linear_dw and embedding_dw round what they make; accumulate rounds what other ops make.
Graph RoundGradients(Graph graph);

// Replaces every node for which `replace` is true by its op's Decompose(), with the node's scope, phase and block.
absl::StatusOr<Graph> DecomposeOps(const Graph& graph, const std::function<bool(const Op&)>& replace);

// The step below Differentiate: from gradients of some values, those of all values that nodes [first, now) read.
absl::Status Backward(GraphBuilder& g, NodeId first, Gradients& grads);

}  // namespace strata
