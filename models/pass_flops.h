#pragma once
// Floating-point operations of a trained token by part of the model and by pass, for plans of pipelines. Together they are
// FlopsPerToken: a product by weights costs 2 a weight in each pass; attention scores cost as much in forward as they do
// half of in backward, where they are all input gradient.

#include <array>

#include "models/model_config.h"

namespace strata {

struct PassFlops {
  double forward = 0, input_grad = 0, weight_grad = 0;
  double sum() const { return forward + input_grad + weight_grad; }
};
struct PartFlops {
  PassFlops products, attention;  // by weights; of queries, keys and values
  double sum() const { return products.sum() + attention.sum(); }
};

// A block of every family has two parts, each of which ends at a value named "residual": attention, then feed-forward.
inline constexpr int kBlockParts = 2;
std::array<PartFlops, kBlockParts> BlockFlops(const ModelConfig& config);  // of one block
PassFlops HeadFlops(const ModelConfig& config);                            // of what comes after the last one

}  // namespace strata
