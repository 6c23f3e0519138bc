#pragma once
// Buckets and the once-a-step collectives of data parallelism. The only maker of gradient collectives: a parameter's
// gradient is Partial on the axes that shard the tokens, by the placement algebra, and its bucket is reduced over them.

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/mesh/mesh.h"
#include "core/plan/bucket.h"
#include "parallel/zero/zero_options.h"

namespace strata {

// Who holds what in a pipeline.
struct StageOwners {
  struct Param {
    std::vector<int> ranks;  // that hold it: coordinates along `axes`, ascending
    bool at_end = false;  // some rank has several stages that read it: its gradient is whole when all of them are done
  };
  AxisSet axes = 0;  // along which ranks hold other stages; 0: no pipeline
  std::map<std::string, Param> params;
};

// Groups the parameters that have a gradient accumulator ("grad.<name>") by (block, or first part of the name; dtypes of both; axes
// on which the gradient is Partial), in order of declaration; makes their states views into flat states
// "bucket.<group>.params" and ".grads"; appends kStep nodes a bucket, in place: read, and one all-reduce over reduce_axes, or
// where the optimizer's states are sharded a reduce-scatter over those axes and an all-reduce over the others. Where `zero`
// shards them, gradients are reduced at every micro-batch (shard_gradients.h) and weights gathered for every use
// (gather_weights.h). Runs on local shapes, after the shard pass; nodes are numbered anew.
// In a pipeline a bucket has parameters of one stage, and its collectives are of that stage's Phase::kReduce. What several
// stages of a rank read, or several ranks hold, has buckets of its own; the former are reduced in kStep, and gradients of the
// latter are summed over their owners too.
absl::StatusOr<Bucketed> BucketPass(Graph local, const Mesh& mesh, const ZeroOptions& zero = {},
                                    const StageOwners& owners = {});

// Appends, for every kBuffer state (a running sum such as "loss"), kStep nodes that all-reduce it over the axes on which it
// is Partial, and over `stage_axes`, where ranks of other stages add what they have; and the graph output of the state's name.
absl::StatusOr<Graph> ReduceBuffers(Graph local, AxisSet stage_axes = 0);

}  // namespace strata
