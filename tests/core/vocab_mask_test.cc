#include "core/ops/vocab_mask.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/graph/op.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/head_loss.h"
#include "core/ops/move.h"
#include "tests/testing/op_checks.h"
#include "tests/testing/shard_checks.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

constexpr int64_t kClasses = 5;

Values Masked(GraphBuilder& g, const Values& in) { return {VocabMask(g, in[0], kClasses)}; }

// The op with 0 for the padding, as its vjp emits it.
Values Zeroed(GraphBuilder& g, const Values& in) {
  GraphBuilder one;
  const Value z = one.Input("z", {DType::kF64, {1, 1, kClasses}, {}});
  const Node node = one.graph().nodes[VocabMask(one, z, kClasses).node];
  return *node.op->Vjp({g, node, {}, {}, in});
}

TEST(VocabMask, PaddingIsMinusInfinityAndItsGradientZero) {
  const Tensor z = Tensor::Random(DType::kF64, {2, 3, 8}, 1);
  const auto y = Call(Masked, {z}), dz = Call(Zeroed, {z});
  ASSERT_TRUE(y.ok() && dz.ok()) << y.status() << dz.status();
  for (int64_t i = 0; i < z.size(); ++i) {
    const bool padding = i % 8 >= kClasses;
    EXPECT_EQ((*y)[0].at(i), padding ? -INFINITY : z.at(i)) << i;
    EXPECT_EQ((*dz)[0].at(i), padding ? 0 : z.at(i)) << i;
  }
}

TEST(VocabMask, ShardRules) {  // of 4 ranks the last one has padding only
  EXPECT_EQ(CheckShardRules(Zeroed, {Tensor::Random(DType::kF64, {4, 4, 8}, 1)}, 4, 4), absl::OkStatus());
}

// A head with rows of padding, whatever they hold, is the head without: loss, dx, and dw with zeros.
TEST(VocabMask, PaddedHeadIsTheHead) {
  const Shape bs = {2, 4};
  const Tensor x = Tensor::Random(DType::kF64, {2, 4, 3}, 1), w = Tensor::Random(DType::kF64, {kClasses, 3}, 2),
               targets = Tensor::RandomInts(bs, 0, kClasses, 3), weights = Tensor::Random(DType::kF64, bs, 4),
               seed = Tensor::Of({}, {0.3});
  Tensor padded = Tensor::Random(DType::kF64, {8, 3}, 5, 4.0);
  for (int64_t i = 0; i < w.size(); ++i) padded.set(i, w.at(i));
  const auto head = [](int64_t classes) {
    return [classes](GraphBuilder& g, const Values& in) {
      const Value loss = HeadLoss(g, in[0], in[1], {}, in[2], in[3], in[4], 2, classes);
      return *g.graph().nodes[loss.node].op->Decompose(g, in);
    };
  };
  const auto want = Call(head(0), {x, w, targets, weights, seed});
  const auto have = Call(head(kClasses), {x, padded, targets, weights, seed});
  ASSERT_TRUE(want.ok() && have.ok()) << want.status() << have.status();
  EXPECT_NEAR((*have)[0].at(0), (*want)[0].at(0), 1e-14);
  EXPECT_LE(MaxAbsDiff((*have)[1], (*want)[1]), 1e-14);
  for (int64_t i = 0; i < padded.size(); ++i) {
    const bool padding = i >= w.size();
    EXPECT_NEAR((*have)[2].at(i), padding ? 0 : (*want)[2].at(i), padding ? 0 : 1e-14);
  }
}

TEST(VocabMask, DTypesAndThreads) {
  const Tensor z = Tensor::Random(DType::kF64, {2, 3, 8}, 1);
  for (DType t : {DType::kF32, DType::kBF16}) {
    const auto error = DTypeError(Zeroed, {z}, t);
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LE(*error, ToleranceOf(t));
  }
  EXPECT_EQ(CheckThreads(Masked, {z}), absl::OkStatus());
}

TEST(VocabMask, Refusals) {
  EXPECT_EQ(BuildError(Masked, {{DType::kF64, {2, 3, 4}, {}}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(BuildError(Masked, {{DType::kI32, {2, 3, 8}, {}}}).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace strata::testing
