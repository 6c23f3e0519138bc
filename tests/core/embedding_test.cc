#include "core/ops/embedding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/exec/device.h"
#include "core/ops/move.h"
#include "tests/testing/op_checks.h"

namespace strata {
namespace {

using testing::Call;
using testing::GraphFn;
using ::testing::HasSubstr;
using testing::Tensor;

const GraphFn kForward = [](GraphBuilder& g, const std::vector<Value>& in) {
  return std::vector{Embedding(g, in[0], in[1])};
};
const GraphFn kDw = [](GraphBuilder& g, const std::vector<Value>& in) {
  return std::vector{EmbeddingDw(g, in[0], in[1], in[2])};
};

TEST(EmbeddingTest, Gradient) {
  const auto error =
      testing::GradientError(kForward, {Tensor::RandomInts({3, 5}, 0, 7, 1), Tensor::Random(DType::kF64, {7, 9}, 2)});
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 1e-6);
}

TEST(EmbeddingTest, KnownValues) {
  const Tensor tokens = [] {
    Tensor t = Tensor::Zeros(DType::kI32, {1, 3});
    for (int i = 0; i < 3; ++i) t.set(i, i == 1 ? 0 : 2);
    return t;
  }();
  const Tensor table = Tensor::Of({3, 2}, {1, 2, 3, 4, 5, 6});
  const auto y = Call(kForward, {tokens, table});
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_EQ(MaxAbsDiff((*y)[0], Tensor::Of({1, 3, 2}, {5, 6, 1, 2, 5, 6})), 0);
  const auto dw = Call(kDw, {tokens, (*y)[0], table});
  ASSERT_TRUE(dw.ok()) << dw.status();
  EXPECT_EQ(MaxAbsDiff((*dw)[0], Tensor::Of({3, 2}, {1, 2, 0, 0, 10, 12})), 0);
}

TEST(EmbeddingTest, NarrowDTypes) {
  const Tensor tokens = Tensor::RandomInts({3, 65}, 0, 7, 1);
  const Tensor table = Tensor::Random(DType::kF64, {7, 9}, 2), dy = Tensor::Random(DType::kF64, {3, 65, 9}, 3);
  for (DType t : {DType::kF32, DType::kBF16}) {
    const auto y = testing::DTypeError(kForward, {tokens, table}, t),
               dw = testing::DTypeError(kDw, {tokens, dy, table}, t);
    ASSERT_TRUE(y.ok() && dw.ok());
    EXPECT_EQ(*y, 0);
    EXPECT_LE(*dw, testing::ToleranceOf(DType::kF32)) << "sums are kept in f32 for bf16 too";
  }
}

TEST(EmbeddingTest, AGradientMayBeRoundedOnce) {
  const Tensor tokens = Tensor::RandomInts({3, 65}, 0, 7, 1);
  const Tensor table = testing::Converted(Tensor::Random(DType::kF64, {9, 70}, 2), DType::kBF16),
               dy = testing::Converted(Tensor::Random(DType::kF64, {3, 65, 70}, 3), DType::kBF16);
  const auto out = Call(
      [](GraphBuilder& g, const std::vector<Value>& in) {
        return std::vector{Cast(g, EmbeddingDw(g, in[0], in[1], in[2]), DType::kBF16),
                           g.Add(RoundedEmbeddingDw(), in)[0],
                           EmbeddingDw(g, in[0], in[1], {.vocab = 9, .rounded = true})};
      },
      {tokens, dy, table});
  ASSERT_TRUE(out.ok()) << out.status();
  for (int i : {1, 2}) {
    EXPECT_EQ((*out)[i].dtype, DType::kBF16);
    EXPECT_EQ(MaxAbsDiff((*out)[i], (*out)[0]), 0);
  }
}

TEST(EmbeddingTest, ResultsDoNotDependOnThreads) {
  const Tensor tokens = Tensor::RandomInts({3, 165}, 0, 7, 1);
  const Tensor table = Tensor::Random(DType::kF64, {7, 129}, 2), dy = Tensor::Random(DType::kF64, {3, 165, 129}, 3);
  EXPECT_TRUE(testing::CheckThreads(kForward, {tokens, table}).ok());
  EXPECT_TRUE(testing::CheckThreads(kDw, {tokens, dy, table}).ok());
}

TEST(EmbeddingTest, GradientNeedsOfTheTableItsRowsAlone) {
  const Tensor tokens = Tensor::RandomInts({2, 7}, 0, 8, 1), table = Tensor::Random(DType::kF32, {8, 5}, 2),
               dy = Tensor::Random(DType::kF32, {2, 7, 5}, 3);
  const auto with = Call(kDw, {tokens, dy, table});
  const auto without =
      Call([](GraphBuilder& g,
              const std::vector<Value>& in) { return std::vector{EmbeddingDw(g, in[0], in[1], {.vocab = 8})}; },
           {tokens, dy});
  ASSERT_TRUE(with.ok() && without.ok()) << without.status();
  EXPECT_EQ((*without)[0].shape, table.shape);
  EXPECT_EQ(MaxAbsDiff((*with)[0], (*without)[0]), 0);
}

// Two shards of the vocabulary, as the TensorRefs of two ranks: their results add up, or join, to the whole.
TEST(EmbeddingTest, VocabularyShardsAddUpToTheWhole) {
  constexpr int64_t kVocab = 8, kWidth = 5, kHalf = kVocab / 2;
  Tensor tokens = Tensor::RandomInts({2, 7}, 0, kVocab, 1);
  Tensor table = Tensor::Random(DType::kF64, {kVocab, kWidth}, 2), dy = Tensor::Random(DType::kF64, {2, 7, kWidth}, 3);
  const auto y = Call(kForward, {tokens, table}), dw = Call(kDw, {tokens, dy, table});
  ASSERT_TRUE(y.ok() && dw.ok());

  GraphBuilder g;
  const Value in0 = g.Input("tokens", {DType::kI32, tokens.shape, {}}),
              in1 = g.Input("table", {DType::kF64, table.shape, {}});
  const Value out = Embedding(g, in0, in1);
  const Op& forward = *g.graph().nodes[out.node].op;
  const Op& backward = *g.graph().nodes[EmbeddingDw(g, in0, out, in1).node].op;
  const KernelTable kernels = CpuKernels();
  const StepScalars scalars;
  const auto run = [&](const Op& op, std::vector<TensorRef> in, TensorRef result) {
    const auto kernel = kernels.Find(op.name(), DType::kF64);
    ASSERT_TRUE(kernel.ok());
    ASSERT_TRUE((*kernel)->run({op, in, {&result, 1}, true, {}, &scalars, 0, Stream{}, nullptr}).ok());
  };

  Tensor sum = Tensor::Zeros(DType::kF64, dy.shape), joined = Tensor::Zeros(DType::kF64, table.shape);
  for (int64_t part = 0; part < 2; ++part) {
    const auto shard = [&](Tensor& whole) {
      TensorRef ref = Contiguous(whole.ref().as<double>() + part * kHalf * kWidth, DType::kF64, {kHalf, kWidth});
      ref.origin[0] = part * kHalf;
      ref.global = whole.shape;
      return ref;
    };
    Tensor y_part = Tensor::Zeros(DType::kF64, dy.shape);
    run(forward, {tokens.ref(), shard(table)}, y_part.ref());
    for (int64_t i = 0; i < sum.size(); ++i) sum.set(i, sum.at(i) + y_part.at(i));
    run(backward, {tokens.ref(), dy.ref(), shard(table)}, shard(joined));
  }
  EXPECT_EQ(MaxAbsDiff(sum, (*y)[0]), 0);
  EXPECT_EQ(MaxAbsDiff(joined, (*dw)[0]), 0);
}

TEST(EmbeddingTest, ErrorsNameShapesAndPlace) {
  const absl::Status s = testing::BuildError(kForward, {{DType::kF32, {2, 3}, {}}, {DType::kF32, {7, 5}, {}}});
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(s.message()), HasSubstr("embedding_test.cc:"));
  EXPECT_THAT(std::string(s.message()), HasSubstr("takes i32 tokens"));
  EXPECT_FALSE(
      testing::BuildError(kDw, {{DType::kI32, {2, 3}, {}}, {DType::kF32, {2, 3, 4}, {}}, {DType::kF32, {7, 5}, {}}})
          .ok());
}

}  // namespace
}  // namespace strata
