#pragma once
// What pipeline stages are balanced by: how long the parts of a model take, estimated from its graph.

#include <string_view>
#include <vector>

#include "core/graph/graph.h"

namespace strata {

// Work by part of the model, in any unit.
struct ModelCosts {
  double embedding = 0, head = 0;
  std::vector<double> parts;  // of blocks: part p of block b is [b * parts_per_block + p]
  int parts_per_block = 1;
};

// Over all nodes of a training graph (forward and backward, one micro-batch, fused ops decomposed): Op::Flops / RelativeRate,
// so operations of products that take as long.
ModelCosts CostsOf(const Graph& train);

// Floating-point operations per second of an op, by its name, beside those of matrix products: less than 1 for attention.
double RelativeRate(std::string_view op);

}  // namespace strata
