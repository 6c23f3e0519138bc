#pragma once
// Buckets: what the bucket pass makes (parallel/zero), the optimizer updates (optim) and the plan places.

#include <string>
#include <vector>

#include "core/graph/graph.h"

namespace strata {

// The parameters of one (block, live dtype, set of Partial axes), back to back in local elements, padded at the end to
// shards * 128 elements. Live weights, gradients, master weights and moments share the element ranges. Buckets are made of
// LOCAL (post-tp) tensors. Each of those is a flat State of spec {dtype, [padded]}; every parameter's own state is a view
// (State::storage) into it.
struct Bucket {
  struct Entry {
    StateId param = -1, grad = -1;  // view states; global shape and layout of the parameter
    int64_t offset = 0, count = 0;  // local elements
    AxisSet model_axes = 0;  // axes that shard the parameter: its square sum is partial there; replicated elsewhere
  };
  std::string name;  // "blocks.3"
  DType live = DType::kF32;
  std::vector<Entry> entries;
  int64_t padded = 0;
  AxisSet reduce_axes = 0;          // the gradient is Partial on these until the step's all-reduce
  StateId params = -1, grads = -1;  // flat: live dtype, AccumulatorOf(live)
};

struct Bucketed {
  Graph graph;
  std::vector<Bucket> buckets;
  std::vector<Value> grads;  // per bucket: the reduced flat gradient, a kStep value
};

}  // namespace strata
