#include "core/ops/linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/base/thread_pool.h"
#include "core/kernels/gemm.h"
#include "core/kernels/onednn.h"
#include "tests/testing/op_checks.h"

namespace strata {
namespace {

using testing::Call;
using testing::GraphFn;
using ::testing::HasSubstr;
using testing::Tensor;

const GraphFn kForward = [](GraphBuilder& g, const std::vector<Value>& in) {
  return std::vector{Linear(g, in[0], in[1])};
};
const GraphFn kDx = [](GraphBuilder& g, const std::vector<Value>& in) {
  return std::vector{LinearDx(g, in[0], in[1])};
};
const GraphFn kDw = [](GraphBuilder& g, const std::vector<Value>& in) {
  return std::vector{LinearDw(g, in[0], in[1])};
};

Tensor Random(const Shape& shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); }

TEST(LinearTest, Gradient) {
  for (const Shape& x : {Shape{2, 3, 5}, Shape{1, 1, 5}, Shape{7, 5}}) {
    const auto error = testing::GradientError(kForward, {Random(x, 1), Random({4, 5}, 2)});
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LE(*error, 1e-6);
  }
}

TEST(LinearTest, KnownValues) {
  const Tensor x = Tensor::Of({1, 2, 2}, {1, 2, 3, 4}), w = Tensor::Of({3, 2}, {1, 0, 0, 1, 1, -1});
  const auto y = Call(kForward, {x, w});
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_EQ(MaxAbsDiff((*y)[0], Tensor::Of({1, 2, 3}, {1, 2, -1, 3, 4, -1})), 0);
  const auto dx = Call(kDx, {(*y)[0], w});
  ASSERT_TRUE(dx.ok()) << dx.status();
  EXPECT_EQ(MaxAbsDiff((*dx)[0], Tensor::Of({1, 2, 2}, {0, 3, 2, 5})), 0);
  const auto dw = Call(kDw, {(*y)[0], x});
  ASSERT_TRUE(dw.ok()) << dw.status();
  EXPECT_EQ(MaxAbsDiff((*dw)[0], Tensor::Of({3, 2}, {10, 14, 14, 20, -4, -6})), 0);
}

TEST(LinearTest, NarrowDTypes) {
  const Tensor x = Random({2, 9, 33}, 1), w = Random({17, 33}, 2), dy = Random({2, 9, 17}, 3);
  for (DType t : {DType::kF32, DType::kBF16}) {
    for (const auto& [fn, inputs] : {std::pair(kForward, std::vector{x, w}), std::pair(kDx, std::vector{dy, w}),
                                     std::pair(kDw, std::vector{dy, x})}) {
      const auto error = testing::DTypeError(fn, inputs, t);
      ASSERT_TRUE(error.ok()) << error.status();
      EXPECT_LE(*error, testing::ToleranceOf(t)) << Name(t);
    }
  }
}

TEST(LinearTest, WeightGradientIsNotRoundedToBf16) {
  const Tensor x = Converted(Random({2, 9, 33}, 1), DType::kBF16), dy = Converted(Random({2, 9, 17}, 3), DType::kBF16);
  const auto dw = Call(kDw, {dy, x});
  ASSERT_TRUE(dw.ok()) << dw.status();
  EXPECT_EQ((*dw)[0].dtype, DType::kF32);
  const auto error = testing::DTypeError(kDw, {dy, x}, DType::kBF16);
  ASSERT_TRUE(error.ok());
  EXPECT_LE(*error, testing::ToleranceOf(DType::kF32));
}

// Sizes that fill several tiles, and in bf16 several panels, with odd remainders.
TEST(LinearTest, ResultsDoNotDependOnThreads) {
  const Tensor x = Random({3, 99, 1030}, 1), w = Random({521, 1030}, 2), dy = Random({3, 99, 521}, 3);
  EXPECT_TRUE(testing::CheckThreads(kForward, {x, w}).ok());
  EXPECT_TRUE(testing::CheckThreads(kDx, {dy, w}).ok());
  EXPECT_TRUE(testing::CheckThreads(kDw, {dy, x}).ok());
}

// Every tile boundary of the blocked products, against the definition; results in float32 and, within its rounding, bf16.
void ExpectTheDefinition(GemmLibrary library, ThreadPool* pool) {
  const int64_t m = 515, n = 514, k = 1027;
  for (Transpose ta : {Transpose::kNo, Transpose::kYes}) {
    for (Transpose tb : {Transpose::kNo, Transpose::kYes}) {
      const Tensor a = Tensor::Random(DType::kBF16, {m, k}, 1), b = Tensor::Random(DType::kBF16, {k, n}, 2);
      const int64_t lda = ta == Transpose::kNo ? k : m, ldb = tb == Transpose::kNo ? n : k;
      const Matrix<const BF16> am{reinterpret_cast<const BF16*>(a.data.data()), lda, ta};
      const Matrix<const BF16> bm{reinterpret_cast<const BF16*>(b.data.data()), ldb, tb};
      std::vector<float> c(m * n, NAN);
      std::vector<BF16> rounded(m * n, BF16(NAN));
      std::vector<std::byte> workspace(GemmWorkspace(DType::kBF16, m, n, k));
      Gemm(m, n, k, am, bm, Matrix<float>{c.data(), n}, workspace, pool, library);
      Gemm(m, n, k, am, bm, Matrix<BF16>{rounded.data(), n}, workspace, pool, library);
      for (int64_t i : {0, 255, 256, 511, 512, 514}) {
        for (int64_t j : {0, 511, 512, 513}) {
          double sum = 0;
          for (int64_t p = 0; p < k; ++p) {
            sum +=
                a.at(ta == Transpose::kNo ? i * k + p : p * m + i) * b.at(tb == Transpose::kNo ? p * n + j : j * k + p);
          }
          EXPECT_NEAR(c[i * n + j], sum, 1e-3) << i << ", " << j;
          EXPECT_NEAR(static_cast<float>(rounded[i * n + j]), sum, 1e-3 + std::abs(sum) / 256) << i << ", " << j;
        }
      }
    }
  }
}

TEST(GemmTest, EqualsTheDefinitionAcrossTilesAndPanels) { ExpectTheDefinition(GemmLibrary::kOpenBlas, nullptr); }

TEST(GemmTest, Bf16IsOneDnnsOnlyWhereTheCpuHasIt) {
  const bool native = DescribeOneDnn().native_bf16;
  EXPECT_EQ(GemmLibraryFor(DType::kBF16), native ? GemmLibrary::kOneDnn : GemmLibrary::kOpenBlas);
  EXPECT_EQ(GemmLibraryFor(DType::kF32), GemmLibrary::kOpenBlas);
  EXPECT_THAT(DescribeGemm(DType::kBF16), HasSubstr(native ? "oneDNN" : "as float32"));
  EXPECT_THAT(DescribeGemm(DType::kF64), HasSubstr("OpenBLAS"));
}

class OneDnnTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const OneDnnFacts& facts = DescribeOneDnn();
    if (facts.version.empty()) GTEST_SKIP() << "this build has no oneDNN";
    if (!facts.runs_bf16)
      GTEST_SKIP() << facts.version << " multiplies bf16 on AVX-512 only; here it has " << facts.isa;
  }
};

TEST_F(OneDnnTest, EqualsTheDefinitionAcrossTilesAndPanels) {
  ThreadPool pool(2);
  ExpectTheDefinition(GemmLibrary::kOneDnn, nullptr);
  ExpectTheDefinition(GemmLibrary::kOneDnn, &pool);
}

TEST_F(OneDnnTest, ResultsDoNotDependOnThreadsAndRepeat) {
  const int64_t m = 700, n = 600, k = 333;
  const Tensor a = Tensor::Random(DType::kBF16, {m, k}, 1), b = Tensor::Random(DType::kBF16, {k, n}, 2);
  std::vector<std::byte> workspace(GemmWorkspace(DType::kBF16, m, n, k));
  const auto product = [&](ThreadPool* pool) {
    std::vector<float> c(m * n, NAN);
    Gemm(m, n, k, Matrix<const BF16>{reinterpret_cast<const BF16*>(a.data.data()), k},
         Matrix<const BF16>{reinterpret_cast<const BF16*>(b.data.data()), n}, Matrix<float>{c.data(), n}, workspace,
         pool, GemmLibrary::kOneDnn);
    return c;
  };
  const std::vector<float> want = product(nullptr);
  for (int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    EXPECT_EQ(product(&pool), want) << threads;
  }
}

TEST(LinearTest, AWeightGradientMayBeRoundedOnce) {
  const Tensor dy = testing::Converted(Tensor::Random(DType::kF64, {3, 20, 24}, 1), DType::kBF16),
               x = testing::Converted(Tensor::Random(DType::kF64, {3, 20, 40}, 2), DType::kBF16);
  const auto out = testing::Call(
      [](GraphBuilder& g, const std::vector<Value>& in) {
        return std::vector{LinearDw(g, in[0], in[1]), g.Add(RoundedLinearDw(), in)[0]};
      },
      {dy, x});
  ASSERT_TRUE(out.ok()) << out.status();
  const Tensor &exact = (*out)[0], &rounded = (*out)[1];
  ASSERT_EQ(rounded.dtype, DType::kBF16);
  for (int64_t i = 0; i < 24 * 40; ++i) {
    ASSERT_NEAR(rounded.at(i), exact.at(i), std::ldexp(std::abs(exact.at(i)), -8) + 1e-5) << i;
  }
}

TEST(LinearTest, FlopsCountMultiplyAndAdd) {
  GraphBuilder g;
  const Value x = g.Input("x", {DType::kF32, {2, 3, 5}, {}}), w = g.Input("w", {DType::kF32, {7, 5}, {}});
  const Value y = Linear(g, x, w);
  const auto flops = [&](Value v) {
    std::vector<TensorSpec> in;
    for (Value i : g.graph().nodes[v.node].inputs) in.push_back(g.spec(i));
    return g.graph().nodes[v.node].op->Flops(in);
  };
  for (Value v : {y, LinearDx(g, y, w), LinearDw(g, y, x)}) EXPECT_EQ(flops(v), 2.0 * 6 * 5 * 7);
}

TEST(LinearTest, ErrorsNameShapesAndPlace) {
  const absl::Status s = testing::BuildError(kForward, {{DType::kF32, {2, 3, 5}, {}}, {DType::kF32, {7, 6}, {}}});
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(s.message()), HasSubstr("linear_test.cc:"));
  EXPECT_THAT(std::string(s.message()),
              HasSubstr("linear( f32[2, 3, 5] f32[7, 6] ): rows of 5 do not fit a weight of 6"));
  EXPECT_FALSE(testing::BuildError(kForward, {{DType::kF32, {2, 5}, {}}, {DType::kBF16, {7, 5}, {}}}).ok());
  EXPECT_FALSE(testing::BuildError(kDw, {{DType::kF32, {2, 3, 7}, {}}, {DType::kF32, {2, 4, 5}, {}}}).ok());
}

}  // namespace
}  // namespace strata
