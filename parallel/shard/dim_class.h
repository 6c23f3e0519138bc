#pragma once
// Which dims of a graph's values are one and the same thing (batch, sequence, heads, ...), read off the ops' sharding
// rows: dims that a row shards together belong to one class.

#include <span>
#include <vector>

#include "core/graph/graph.h"
#include "core/graph/op.h"

namespace strata {

class DimClasses {
 public:
  // rules[n]: the rows of node n.
  DimClasses(const Graph& graph, std::span<const std::vector<ShardRule>> rules);
  int Of(Value v, int dim) const { return class_[Index(v, dim)]; }
  int size() const { return static_cast<int>(class_.size()); }  // classes are below this

 private:
  int Index(Value v, int dim) const { return (first_[v.node] + v.output) * kMaxRank + dim; }
  std::vector<int> first_;  // by node: outputs before it
  std::vector<int> class_;  // by index
};

}  // namespace strata
