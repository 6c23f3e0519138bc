#include "core/ops/cross_entropy.h"

#include <utility>

#include "core/ops/fused.h"
#include "core/ops/move.h"
#include "core/ops/vocab_mask.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

Value Acc(GraphBuilder& g, Value v) { return Cast(g, v, AccumulatorOf(g.spec(v).dtype)); }

// Logits, targets of which some lie outside, weights of which some are 0, d loss.
std::vector<Tensor> Operands(int64_t b, int64_t s, int64_t v) {
  Tensor weights = Tensor::Random(DType::kF64, {b, s}, 3);
  for (int64_t i = 0; i < weights.size(); i += 4) weights.set(i, 0);
  return {Tensor::Random(DType::kF64, {b, s, v}, 1, 3.0), Tensor::RandomInts({b, s}, -1, v + 1, 2), weights,
          Tensor::Of({}, {0.37})};
}

TEST(CudaCrossEntropy, Pieces) {
  STRATA_NEEDS_GPU();
  for (const int64_t v : {33, 1000}) {
    SCOPED_TRACE(v);
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const Value z = in[0], w = Acc(g, in[2]), seed = Acc(g, in[3]);
          const Value m = VocabMax(g, z), s = VocabSumExp(g, z, m), p = VocabPick(g, z, in[1]);
          const NllGradients d = NllDx(g, s, w, seed);
          return Values{m,
                        s,
                        p,
                        Nll(g, m, s, p, w),
                        d.ds_BS,
                        d.dp_BS,
                        VocabSumExpDx(g, z, m, d.ds_BS),
                        VocabPickDx(g, z, in[1], d.dp_BS)};
        },
        Operands(3, 11, v));
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const Value m = VocabMax(g, in[0]), s = VocabSumExp(g, in[0], m);
          return Values{SoftmaxGrad(g, in[0], m, s, in[1], Acc(g, in[2]), Acc(g, in[3]))};
        },
        Operands(3, 11, v), {.in_place = false});
  }
}

TEST(CudaCrossEntropy, GradientOverTheLogits) {
  STRATA_NEEDS_GPU();
  for (const int64_t v : {33, 1000, 4096}) {
    SCOPED_TRACE(v);
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const Value m = VocabMax(g, in[0]), s = VocabSumExp(g, in[0], m);
          return Values{SoftmaxGrad(g, in[0], m, s, in[1], Acc(g, in[2]), Acc(g, in[3]))};
        },
        Operands(2, 5, v), {.in_place = true});
  }
}

void ExpectFusedClose(int64_t vocabulary) {
  SCOPED_TRACE(vocabulary);
  const std::vector<Tensor> in = Operands(2, 6, vocabulary);
  ExpectGpuClose([](GraphBuilder& g, const Values& in) { return Values{SoftmaxNll(g, in[0], in[1], Acc(g, in[2]))}; },
                 in);
  for (const bool in_place : {false, true}) {
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const NllAndGrad r = SoftmaxNllGrad(g, in[0], in[1], Acc(g, in[2]), Acc(g, in[3]));
          return Values{Value{r.loss.node, 0}, Value{r.loss.node, 1}};
        },
        in, {.in_place = in_place});
  }
}

// Odd rows; rows of whole vectors; the longest that a block holds in registers; some in shared memory; one there; longer ones than two
// blocks take.
TEST(CudaCrossEntropy, Fused) {
  STRATA_NEEDS_GPU();
  for (const int64_t v : {1, 33, 1000, 16384, 20000, 32768, 40000, 40001, 70000, 250000}) ExpectFusedClose(v);
}

// A row in the shared memory of two blocks, a cluster.
TEST(CudaCrossEntropy, FusedInTwoBlocks) {
  STRATA_NEEDS_GPU();
  ExpectFusedClose(130000);
}

// More rows than blocks, or pairs of them, that stay: each has several, one after the other.
TEST(CudaCrossEntropy, ManyLongRows) {
  STRATA_NEEDS_GPU();
  if (SmallShapes()) GTEST_SKIP() << "long under a sanitizer";
  for (const auto& [rows, v] : {std::pair<int64_t, int64_t>{280, 33000}, {140, 112000}}) {
    for (const bool in_place : {false, true}) {
      SCOPED_TRACE(v);
      ExpectGpuClose(
          [](GraphBuilder& g, const Values& in) {
            const NllAndGrad r = SoftmaxNllGrad(g, in[0], in[1], Acc(g, in[2]), Acc(g, in[3]));
            return Values{Value{r.loss.node, 0}, Value{r.loss.node, 1}};
          },
          Operands(2, rows / 2, v), {.in_place = in_place});
    }
  }
}

TEST(CudaCrossEntropy, LargeLogitsDoNotOverflow) {
  STRATA_NEEDS_GPU();
  std::vector<Tensor> in = Operands(1, 3, 1000);
  for (int64_t i = 0; i < in[0].size(); ++i) in[0].set(i, 100 * in[0].at(i));
  ExpectGpuClose(
      [](GraphBuilder& g, const Values& in) {
        const NllAndGrad r = SoftmaxNllGrad(g, in[0], in[1], Acc(g, in[2]), Acc(g, in[3]));
        return Values{Value{r.loss.node, 0}, Value{r.loss.node, 1}};
      },
      in, {}, 10);  // exp(x) has the error of x: logits of some hundreds have 2^-16 of absolute error in f32
}

TEST(CudaCrossEntropy, PaddedVocabulary) {
  STRATA_NEEDS_GPU();
  for (const int64_t v : {33, 64}) {
    for (const bool in_place : {false, true}) {
      ExpectGpuClose(
          [v](GraphBuilder& g, const Values& in) {
            const Value z = VocabMask(g, in[0], v - 5), m = VocabMax(g, z), s = VocabSumExp(g, z, m);
            return Values{s, SoftmaxGrad(g, z, m, s, in[1], Acc(g, in[2]), Acc(g, in[3]))};
          },
          Operands(2, 5, v), {.in_place = in_place});
    }
  }
}

TEST(CudaCrossEntropy, ShardOfTheVocabulary) {
  STRATA_NEEDS_GPU();
  for (const int64_t v : {33, 64}) {
    const Tensor z = Tensor::Random(DType::kF32, {2, 9, v}, 1), targets = Tensor::RandomInts({2, 9}, 40, 60 + v, 2),
                 rows = Tensor::Random(DType::kF32, {2, 9}, 3), seed = Tensor::Random(DType::kF32, {}, 4);
    Tensor positive = rows;
    for (int64_t i = 0; i < positive.size(); ++i) positive.set(i, 5 + i);
    const auto shard = [](std::span<TensorRef> in, std::span<TensorRef>) { in[0].origin[2] = 50; };
    const auto expect = [&](const GraphFn& fn, const std::vector<Tensor>& inputs) {
      const auto errors = GpuKernelErrors(fn, inputs, shard);
      ASSERT_TRUE(errors.ok()) << errors.status();
      EXPECT_LE((*errors)[0], GpuTolerance(DType::kF32));
    };
    expect([](GraphBuilder& g, const Values& in) { return Values{VocabPick(g, in[0], in[1])}; }, {z, targets});
    expect([](GraphBuilder& g, const Values& in) { return Values{VocabPickDx(g, in[0], in[1], in[2])}; },
           {z, targets, rows});
    expect([](GraphBuilder& g,
              const Values& in) { return Values{SoftmaxGrad(g, in[0], in[1], in[2], in[3], in[4], in[5])}; },
           {z, rows, positive, targets, rows, seed});
  }
}

}  // namespace
}  // namespace strata::testing
