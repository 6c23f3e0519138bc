#pragma once
// Buckets: what the bucket pass makes (parallel/zero), the optimizer updates (optim) and the plan places.

#include <string>
#include <vector>

#include "core/graph/graph.h"

namespace strata {

// The parameters of one (block, live dtype, gradient dtype, set of Partial axes; where gradients are sharded, whether backward reads them),
// back to back in local elements, padded at the end to shards * 128 elements. Live weights, gradients, master weights and
// moments share the element ranges. Buckets are made of LOCAL (post-tp) tensors. Each of those is a flat State of spec
// {dtype, [padded]}; every parameter's own state is a view (State::storage) into it.
// ZeRO: a flat state is Shard(0) on a set of data-parallel axes, so a rank holds a range of it in place. The sets nest,
// weight_axes in grad_axes in shard_axes, each a prefix of the next in the order of the mesh.
// Pipeline: all entries of a bucket are of the same stages, and held by the same pipeline ranks.
struct Bucket {
  struct Entry {
    StateId param = -1, grad = -1;  // view states; global shape and layout of the parameter
    int64_t offset = 0, count = 0;  // local elements of the whole bucket
    AxisSet model_axes = 0;  // axes that shard the parameter: its square sum is partial there; replicated elsewhere
  };
  std::string name, group;  // "blocks.3"; several buckets of one group are "head", "head.1"
  DType live = DType::kF32;
  DType gradient = DType::kF32;  // AccumulatorOf(live), or bf16
  std::vector<Entry> entries;
  int64_t padded = 0;
  AxisSet reduce_axes = 0;          // the gradient of a micro-batch is Partial on these
  AxisSet shard_axes = 0;           // master weights, moments and the step's reduced gradient are sharded on these
  AxisSet grad_axes = 0;            // the accumulator: reduced at every micro-batch (ZeRO-2)
  AxisSet weight_axes = 0;          // live weights, but while they are used (ZeRO-3)
  StateId params = -1, grads = -1;  // flat: of the dtypes `live` and `gradient`
  std::vector<int> owners;          // pipeline ranks that hold it, where there are several: tied, or of two replicas
  bool counted = true;              // in the gradient norm, on this rank: of its owners, the first counts it
};

struct Bucketed {
  Graph graph;
  std::vector<Bucket> buckets;
  std::vector<Value> grads;  // per bucket: the reduced flat gradient, Shard(0) on shard_axes
  AxisSet stage_axes = 0;    // along which ranks hold other stages, so other buckets
};

}  // namespace strata
