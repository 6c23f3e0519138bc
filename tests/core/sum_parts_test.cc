#include "core/ops/sum_parts.h"

#include <gtest/gtest.h>

#include "core/plan/sum_blocks.h"
#include "tests/testing/op_checks.h"

namespace strata::testing {
namespace {

const GraphFn kSum = [](GraphBuilder& g, const std::vector<Value>& in) {
  return std::vector<Value>{SumParts(g, in[0])};
};

TEST(SumParts, SumsRowsInTheirOrder) {
  // 1e8 + 1 is 1e8 in float32: the order shows.
  Tensor x = Tensor::Zeros(DType::kF32, {3, 2});
  for (int64_t i = 0; i < 6; ++i) x.set(i, (const double[]){1e8, 1, 1, 1e8, -1e8, -1e8}[i]);
  const auto y = Call(kSum, {x});
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_EQ(y->at(0).dtype, DType::kF32);
  EXPECT_EQ(y->at(0).at(0), 0);
  EXPECT_EQ(y->at(0).at(1), 0);
}

TEST(SumParts, SumsBf16InFloat32) {
  Tensor x = Tensor::Zeros(DType::kBF16, {2, 1});
  x.set(0, 256);
  x.set(1, 1);  // 257 is no bf16
  const auto y = Call(kSum, {x});
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_EQ(y->at(0).dtype, DType::kF32);
  EXPECT_EQ(y->at(0).at(0), 257);
}

TEST(SumParts, OfFloat64IsFloat64) {
  const Tensor x = Tensor::Random(DType::kF64, {4, 100'000}, 1);
  const auto y = Call(kSum, {x});
  ASSERT_TRUE(y.ok()) << y.status();
  for (int64_t i = 0; i < 100'000; ++i) {
    ASSERT_EQ(y->at(0).at(i), ((x.at(i) + x.at(100'000 + i)) + x.at(200'000 + i)) + x.at(300'000 + i));
  }
}

GraphFn SumBlocks(int64_t me) {
  return [me](GraphBuilder& g, const std::vector<Value>& in) {
    return std::vector<Value>{g.Add(std::make_shared<SumBlocksOp>(me), {in[0], in[1]})[0]};
  };
}

TEST(SumBlocks, SumsEachBlockWithTheOwnPartOfWhatWasSent) {
  const int64_t columns = 3000;
  const Tensor x = Tensor::Random(DType::kF64, {2, 3, columns}, 1),
               sent = Tensor::Random(DType::kF64, {2, 3, columns}, 2);
  for (const int64_t me : {0, 1, 2}) {
    const auto y = Call(SumBlocks(me), {x, sent});
    ASSERT_TRUE(y.ok()) << y.status();
    ASSERT_EQ(y->at(0).shape, (Shape{2, columns}));
    for (int64_t a = 0; a < 2; ++a) {
      for (int64_t i = 0; i < columns; ++i) {
        const auto at = [&](int64_t p) { return (p == me ? sent : x).at((a * 3 + p) * columns + i); };
        ASSERT_EQ(y->at(0).at(a * columns + i), (at(0) + at(1)) + at(2));
      }
    }
  }
}

TEST(SumBlocks, RoundsOnce) {
  Tensor x = Tensor::Zeros(DType::kBF16, {1, 3, 1}), sent = x;
  sent.set(0, 256);
  x.set(1, 1);  // 257 is no bf16, 258 is
  x.set(2, 1);
  const auto y = Call(SumBlocks(0), {x, sent});
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_EQ(y->at(0).dtype, DType::kBF16);
  EXPECT_EQ(y->at(0).at(0), 258);
}

}  // namespace
}  // namespace strata::testing
