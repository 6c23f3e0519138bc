#pragma once
// Where parameters lie in the flat tensors of buckets, by names: the same for every program of a job.

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/plan/bucket.h"

namespace strata {

// The live weights of a bucket.
struct FlatWeights {
  struct Entry {
    std::string parameter;
    int64_t offset = 0;  // local elements of the whole bucket
  };
  std::string name, group;  // of the bucket: "blocks.3"
  std::string state;        // "bucket.blocks.3.params"
  TensorSpec spec;
  AxisSet axes = 0;  // that shard it (ZeRO-3); none: it is whole
  std::vector<Entry> entries;
};
std::vector<FlatWeights> FlatWeightsOf(const Graph& graph, std::span<const Bucket> buckets);

// For a job that trains nothing, so has no buckets: whole ones of the parameters that the local graph reads.
absl::StatusOr<std::vector<FlatWeights>> LayOutWeights(const Graph& local, const Mesh& mesh);

// The graph's parameters in whole buckets become views of those, so that weights used together may be one matrix.
absl::StatusOr<Graph> ViewWeights(Graph local, std::span<const FlatWeights> weights);

// The bucket of a parameter that node `read` reads: "blocks.3" in block 3, else the first part of its name.
std::string BucketName(const Node& read, const std::string& parameter);
// From where on the next parameter may lie behind `elements` others.
int64_t NextOffset(int64_t elements);

}  // namespace strata
