#include "core/ops/document_positions.h"

#include <gtest/gtest.h>

#include "tests/testing/op_checks.h"
#include "tests/testing/shard_checks.h"

namespace strata::testing {
namespace {

std::vector<Value> Positions(GraphBuilder& g, const std::vector<Value>& in) {
  return {DocumentPositions(g, in[0], in[1])};
}

TEST(DocumentPositions, CountFromTheStart) {
  const Tensor positions = Tensor::Of({4}, {8, 9, 10, 11}, DType::kI32);
  const Tensor starts = Tensor::Of({2, 4}, {0, 0, 10, 10, 8, 9, 9, 11}, DType::kI32);
  const auto out = Call(Positions, {positions, starts});
  ASSERT_TRUE(out.ok()) << out.status();
  const double expected[] = {8, 9, 0, 1, 0, 0, 1, 0};
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ((*out)[0].at(i), expected[i]);
  EXPECT_EQ(CheckShardRules(Positions, {positions, starts}, 3), absl::OkStatus());
}

TEST(DocumentPositions, RefusesOtherShapes) {
  const TensorSpec starts{DType::kI32, {2, 4}, {}};
  EXPECT_FALSE(BuildError(Positions, {{DType::kI32, {2}, {}}, starts}).ok());
  EXPECT_FALSE(BuildError(Positions, {{DType::kF32, {4}, {}}, starts}).ok());
  EXPECT_FALSE(BuildError(Positions, {{DType::kI32, {4}, {}}, {DType::kI32, {4}, {}}}).ok());
}

}  // namespace
}  // namespace strata::testing
