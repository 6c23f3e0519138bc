#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/base/philox.h"
#include "core/base/thread_pool.h"
#include "core/kernels/cpu_kernels.h"
#include "core/ops/optimizer.h"

namespace strata {
namespace {

constexpr int64_t kCount = 100'003;  // several tiles and a tail
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<float> Random(int64_t n, uint64_t stream) {
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(PhiloxNormal(Philox(1, stream, i)));
  return x;
}

// Builds `fn` on f32 inputs of the given shapes and returns its last node.
template <typename Fn>
absl::StatusOr<Node> NodeOf(std::vector<Shape> shapes, const Fn& fn) {
  GraphBuilder g;
  std::vector<Value> in;
  for (size_t i = 0; i < shapes.size(); ++i) in.push_back(g.Input(std::to_string(i), {DType::kF32, shapes[i], {}}));
  fn(g, in);
  absl::StatusOr<Graph> graph = std::move(g).Build();
  if (!graph.ok()) return graph.status();
  return graph->nodes.back();
}

absl::Status RunKernel(const Node& node, std::vector<TensorRef> in, std::vector<TensorRef> out, ThreadPool* pool,
                       const StepScalars& scalars = {}) {
  KernelTable table;
  AddOptimizerKernels(table);
  AddSquaresKernels(table);
  const Kernel* kernel = *table.Find(node.op->name(), in[0].dtype);
  std::vector<std::byte> workspace(
      kernel->workspace == nullptr ? 0 : static_cast<size_t>(kernel->workspace(*node.op, in)), std::byte{0xff});
  return kernel->run({*node.op, in, out, false, workspace, &scalars, 0, {}, pool});
}

float SumSquaresOfRanges(const std::vector<float>& x, const std::vector<FlatRange>& ranges, ThreadPool* pool) {
  const Shape shape{static_cast<int64_t>(x.size())};
  const Node node =
      *NodeOf({shape}, [&](GraphBuilder& g, const std::vector<Value>& in) { SumSquares(g, in[0], ranges); });
  float sum = static_cast<float>(kNaN);
  EXPECT_EQ(RunKernel(node, {Contiguous(const_cast<float*>(x.data()), DType::kF32, shape)},
                      {Contiguous(&sum, DType::kF32, {})}, pool),
            absl::OkStatus());
  return sum;
}

TEST(SumSquaresKernel, SumsItsRangesOnly) {
  std::vector<float> x = Random(kCount, 0);
  const std::vector<FlatRange> ranges = {{0, 7}, {64, 40'000}, {kCount - 30'000, 30'000}};
  double want = 0;
  std::vector<bool> counted(x.size());
  for (const FlatRange& r : ranges) {
    for (int64_t i = r.offset; i < r.offset + r.count; ++i) {
      want += double{x[i]} * x[i];
      counted[i] = true;
    }
  }
  for (size_t i = 0; i < x.size(); ++i) {
    if (!counted[i]) x[i] = static_cast<float>(kNaN);
  }
  EXPECT_NEAR(SumSquaresOfRanges(x, ranges, nullptr) / want, 1, 1e-6);
  EXPECT_EQ(SumSquaresOfRanges(x, {}, nullptr), 0);
}

TEST(SumSquaresKernel, IsTheSameOnAnyNumberOfThreads) {
  const std::vector<float> x = Random(kCount, 0);
  ThreadPool pool(3);
  for (const std::vector<FlatRange>& ranges : {std::vector<FlatRange>{{0, kCount}}, {{5, 20'000}, {50'001, 33'333}}}) {
    EXPECT_EQ(SumSquaresOfRanges(x, ranges, nullptr), SumSquaresOfRanges(x, ranges, &pool));
  }
}

TEST(AdamWKernel, IsTheSameOnAnyNumberOfThreadsAndDecaysItsSegments) {
  const Shape shape{kCount};
  AdamWSpec spec;
  spec.segments = {{{3, 40'000}, 0.1}, {{60'000, 1}, 0.5}};
  const Node node = *NodeOf({shape, shape, shape, shape, {}}, [&](GraphBuilder& g, const std::vector<Value>& in) {
    AdamW(g, spec, {in[0], in[1], in[2], in[3], in[4]});
  });
  std::vector<float> grads(kCount), result[2];  // without a gradient only the decay moves a weight
  ThreadPool pool(3);
  for (int run = 0; run < 2; ++run) {
    std::vector<float> w = Random(kCount, 1), m(kCount), v(kCount);
    float norm = 0;
    const auto ref = [&](std::vector<float>& x) { return Contiguous(x.data(), DType::kF32, shape); };
    EXPECT_EQ(RunKernel(node, {ref(w), ref(grads), ref(m), ref(v), Contiguous(&norm, DType::kF32, {})},
                        {ref(w), ref(m), ref(v)}, run == 0 ? nullptr : &pool, {.lr = 0.5}),
              absl::OkStatus());
    result[run] = w;
  }
  EXPECT_EQ(result[0], result[1]);
  const std::vector<float> before = Random(kCount, 1);
  for (int64_t i = 0; i < kCount; ++i) {
    const float decay = i >= 3 && i < 40'003 ? 0.1f : i == 60'000 ? 0.5f : 0.0f;
    ASSERT_FLOAT_EQ(result[0][i], before[i] * (1 - 0.5f * decay)) << i;
  }
}

// Gradients of bf16 are those numbers in f32.
// 16 bytes read and 14 written for an element.
TEST(AdamWKernel, OnlyWritesLiveWeights) {
  GraphBuilder g;
  std::vector<Value> in;
  for (const char* name : {"w", "grad", "m", "v"}) in.push_back(g.Input(name, {DType::kF32, {kCount}, {}}));
  const Value norm = g.Input("norm", {DType::kF32, {}, {}}), live = g.Input("live", {DType::kBF16, {kCount}, {}});
  AdamW(g, {}, {in[0], in[1], in[2], in[3], norm, live});
  const absl::StatusOr<Graph> graph = std::move(g).Build();
  ASSERT_TRUE(graph.ok()) << graph.status();
  const TensorRef x = Contiguous(nullptr, DType::kF32, {kCount}), one = Contiguous(nullptr, DType::kF32, {}),
                  half = Contiguous(nullptr, DType::kBF16, {kCount});
  KernelTable table;
  AddOptimizerKernels(table);
  const Kernel* kernel = *table.Find("adamw", DType::kF32);
  const std::vector<TensorRef> read = {x, x, x, x, one, half}, written = {x, x, x, half};
  EXPECT_EQ(kernel->cost(*graph->nodes.back().op, read, written).bytes, 30.0 * kCount + 4);
}

// Ties, overflows into the next exponent, subnormals, infinities.
TEST(Halves, AreTheFloatAgain) {
  for (uint32_t high = 0; high < 0x7f80; high += 7) {
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      for (const uint32_t sign : {0u, 1u}) {
        const float f = __builtin_bit_cast(float, sign << 31 | high << 16 | low);
        const Halves h = SplitHalves(f);
        ASSERT_EQ(__builtin_bit_cast(uint32_t, JoinHalves(h.high, h.low)), __builtin_bit_cast(uint32_t, f));
        if (low != 0x8000 || high % 2 == 1) {
          ASSERT_EQ(h.high.bits, BF16(f).bits) << high << " " << low;
        }
      }
    }
  }
  EXPECT_EQ(JoinHalves(SplitHalves(INFINITY).high, SplitHalves(INFINITY).low), INFINITY);
}

// By gradients of either dtype the sum of the halves is what whole weights become, in every bit.
TEST(Halves, AreUpdatedAsWholeWeights) {
  const Shape shape{kCount};
  for (const bool sgd : {false, true}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      std::vector<float> grad = Random(kCount, 2);
      std::vector<BF16> rounded(kCount);
      for (int64_t i = 0; i < kCount; ++i) rounded[i] = BF16(grad[i]);
      std::vector<float> whole = Random(kCount, 1);
      std::vector<BF16> live(kCount);
      std::vector<uint16_t> low(kCount);
      for (int64_t i = 0; i < kCount; ++i) {
        const Halves h = SplitHalves(whole[i]);
        live[i] = h.high;
        low[i] = h.low;
      }
      for (const bool split : {false, true}) {
        GraphBuilder g;
        const auto input = [&](const char* name, DType t, const Shape& s) { return g.Input(name, {t, s, {}}); };
        const Value w = input("w", split ? DType::kLow16 : DType::kF32, shape), gradient = input("grad", dtype, shape),
                    m = input("m", DType::kF32, shape), v = input("v", DType::kF32, shape),
                    norm = input("norm", DType::kF32, {}), upper = split ? input("live", DType::kBF16, shape) : Value{};
        const std::vector<DecayRange> decays = {{{3, 40'000}, 0.1}};
        if (sgd) {
          Sgd(g, {.max_norm = 1, .segments = decays}, {w, gradient, m, norm, upper});
        } else {
          AdamW(g, {.max_norm = 1, .segments = decays}, {w, gradient, m, v, norm, upper});
        }
        const absl::StatusOr<Graph> graph = std::move(g).Build();
        ASSERT_TRUE(graph.ok()) << graph.status();
        std::vector<float> first(kCount), second(kCount);
        float two = 2;
        const auto ref = [&](std::vector<float>& x) { return Contiguous(x.data(), DType::kF32, shape); };
        const TensorRef weights = split ? Contiguous(low.data(), DType::kLow16, shape) : ref(whole);
        std::vector<TensorRef> in = {weights,
                                     dtype == DType::kF32 ? ref(grad) : Contiguous(rounded.data(), dtype, shape),
                                     ref(first), ref(second), Contiguous(&two, DType::kF32, {})};
        std::vector<TensorRef> out = {in[0], in[2], in[3]};
        if (sgd) {
          in.erase(in.begin() + 3);
          out.pop_back();
        }
        if (split) {
          in.push_back(Contiguous(live.data(), DType::kBF16, shape));
          out.push_back(in.back());
        }
        EXPECT_EQ(RunKernel(graph->nodes.back(), in, out, nullptr, {.step = 2, .lr = 0.5}), absl::OkStatus());
      }
      for (int64_t i = 0; i < kCount; ++i) ASSERT_EQ(JoinHalves(live[i], low[i]), whole[i]) << i;
      EXPECT_NE(whole, Random(kCount, 1));
    }
  }
}

TEST(Bf16Gradients, UpdateAsTheirValuesDo) {
  const Shape shape{kCount};
  std::vector<BF16> rounded(kCount);
  std::vector<float> exact = Random(kCount, 2);
  for (int64_t i = 0; i < kCount; ++i) exact[i] = static_cast<float>(rounded[i] = BF16(exact[i]));
  for (const bool sgd : {false, true}) {
    std::vector<float> result[2];
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      GraphBuilder g;
      const auto input = [&](const char* name, DType t, const Shape& s) { return g.Input(name, {t, s, {}}); };
      const Value w = input("w", DType::kF32, shape), grad = input("grad", dtype, shape),
                  m = input("m", DType::kF32, shape), v = input("v", DType::kF32, shape),
                  norm = input("norm", DType::kF32, {});
      if (sgd) {
        Sgd(g, {.max_norm = 1}, {w, grad, m, norm});
      } else {
        AdamW(g, {.max_norm = 1}, {w, grad, m, v, norm});
      }
      const absl::StatusOr<Graph> graph = std::move(g).Build();
      ASSERT_TRUE(graph.ok()) << graph.status();
      std::vector<float> weights = Random(kCount, 1), first(kCount), second(kCount);
      float two = 2;
      const auto ref = [&](std::vector<float>& x) { return Contiguous(x.data(), DType::kF32, shape); };
      std::vector<TensorRef> in = {ref(weights),
                                   dtype == DType::kF32 ? ref(exact) : Contiguous(rounded.data(), DType::kBF16, shape),
                                   ref(first), ref(second), Contiguous(&two, DType::kF32, {})};
      std::vector<TensorRef> out = {in[0], in[2], in[3]};
      if (sgd) {
        in.erase(in.begin() + 3);
        out.pop_back();
      }
      EXPECT_EQ(RunKernel(graph->nodes.back(), in, out, nullptr, {.step = 2, .lr = 0.5}), absl::OkStatus());
      result[dtype == DType::kBF16] = weights;
    }
    EXPECT_EQ(result[0], result[1]) << sgd;
    EXPECT_NE(result[0], Random(kCount, 1));
  }
}

TEST(Bf16Gradients, HaveTheSquareSumOfTheirValues) {
  GraphBuilder g;
  SumSquares(g, g.Input("x", {DType::kBF16, {kCount}, {}}), {{0, kCount}});
  const absl::StatusOr<Graph> graph = std::move(g).Build();
  ASSERT_TRUE(graph.ok()) << graph.status();
  std::vector<BF16> rounded(kCount);
  std::vector<float> exact = Random(kCount, 2);
  for (int64_t i = 0; i < kCount; ++i) exact[i] = static_cast<float>(rounded[i] = BF16(exact[i]));
  const auto sum = [&] {
    float out = -1;
    EXPECT_EQ(RunKernel(graph->nodes.back(), {Contiguous(rounded.data(), DType::kBF16, {kCount})},
                        {Contiguous(&out, DType::kF32, {})}, nullptr),
              absl::OkStatus());
    return out;
  };
  EXPECT_EQ(sum(), SumSquaresOfRanges(exact, {{0, kCount}}, nullptr));
  rounded[kCount - 1] = BF16(std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isinf(sum()));  // which the guard holds back
}

TEST(GuardKernel, HoldsBackWhatIsNotFiniteOrAboveTheLimit) {
  const Node node = *NodeOf({{}, {}}, [](GraphBuilder& g, const std::vector<Value>& in) { Guard(g, in[0], in[1]); });
  const auto guarded = [&](double norm, double loss) {
    float n = static_cast<float>(norm), l = static_cast<float>(loss), out = -1;
    EXPECT_EQ(RunKernel(node, {Contiguous(&n, DType::kF32, {}), Contiguous(&l, DType::kF32, {})},
                        {Contiguous(&out, DType::kF32, {})}, nullptr, {.loss_limit = 8}),
              absl::OkStatus());
    return out;
  };
  constexpr double kInf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(guarded(2, 7), 2);
  EXPECT_EQ(guarded(2, 8), 2);
  EXPECT_EQ(guarded(0, -1), 0);
  for (const auto& [norm, loss] :
       {std::pair(2.0, 8.5), {2.0, kInf}, {2.0, -kInf}, {2.0, kNaN}, {kInf, 7.0}, {kNaN, 7.0}}) {
    EXPECT_TRUE(std::isnan(guarded(norm, loss))) << norm << " " << loss;
  }
}

TEST(OptimizerOps, RefuseWhatDoesNotFit) {
  const Shape flat{100};
  for (const std::vector<FlatRange>& ranges :
       {std::vector<FlatRange>{{-1, 2}}, {{90, 11}}, {{0, 10}, {9, 1}}, {{0, -1}}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        NodeOf({flat}, [&](GraphBuilder& g, const std::vector<Value>& in) { SumSquares(g, in[0], ranges); }).status()));
  }
  const auto adamw = [](std::vector<Shape> shapes, bool live) {
    return NodeOf(std::move(shapes),
                  [&](GraphBuilder& g, const std::vector<Value>& in) {
                    AdamW(g, {}, {in[0], in[1], in[2], in[3], in[4], live ? in[0] : Value{}});
                  })
        .status();
  };
  EXPECT_EQ(adamw({flat, flat, flat, flat, {}}, false), absl::OkStatus());
  EXPECT_TRUE(absl::IsInvalidArgument(adamw({flat, flat, flat, Shape{99}, {}}, false)));
  EXPECT_TRUE(absl::IsInvalidArgument(adamw({flat, flat, flat, flat, flat}, false)));
  EXPECT_TRUE(absl::IsInvalidArgument(adamw({flat, flat, flat, flat, {}}, true)));  // live weights of f32
}

}  // namespace
}  // namespace strata
