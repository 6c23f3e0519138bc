#pragma once
// The steps of FuseOps (fuse.h) that fuse more than neighbours: each from a rank's local graph to a local graph.

#include "absl/status/statusor.h"
#include "core/exec/device.h"
#include "core/graph/graph.h"

namespace strata {

// Gradients of weights and biases that are added to an accumulator, and several of one weight whose sum is a part of a flat
// tensor (core/ops/flat.h): each is added where the sum lies, by linear_dw_acc, embedding_dw_acc or bias_grad_acc.
absl::StatusOr<Graph> FuseSums(const Graph& old, const KernelTable& kernels);

// q | k | v, the rope, attention, and their gradients. After FuseSums, as the next.
absl::StatusOr<Graph> FuseAttention(const Graph& old, const Mesh& mesh);

// What is left of attention whose keys have the positions of the queries, where heads_packed has a kernel of the dtype: q, k
// and v are put side by side. Models with norms of single heads.
absl::StatusOr<Graph> FuseHeads(const Graph& old, const KernelTable& kernels);

// gate | up, swiglu, and their gradients: in the products beside them.
absl::StatusOr<Graph> FuseSwiglu(const Graph& old, const Mesh& mesh);

// gelu of an affine map, and its gradient: in the products beside them, with the gradient of the map's bias where there is a kernel for
// it. After FuseSums.
absl::StatusOr<Graph> FuseGelu(const Graph& old, const KernelTable& kernels);

}  // namespace strata
