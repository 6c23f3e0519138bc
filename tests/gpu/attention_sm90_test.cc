// Attention's kernels for Hopper against float64, where no cuDNN is found, so that nothing else is faster. On other GPUs the plain
// kernels answer.
#include <cstdlib>

#include "core/ops/attention.h"
#include "core/ops/fused.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

struct Sizes {
  int64_t b, hq, hk, s, t, d;
};
std::string Describe(const Sizes& z, AttentionMask mask) {
  return std::string(mask == AttentionMask::kCausal ? "causal" : "full") + " b " + std::to_string(z.b) + " heads " +
         std::to_string(z.hq) + "/" + std::to_string(z.hk) + " s " + std::to_string(z.s) + "/" + std::to_string(z.t) +
         " d " + std::to_string(z.d);
}

// While there is one of these, no cuDNN is found.
class WithoutCudnn {
 public:
  WithoutCudnn() {
    const char* before = std::getenv("STRATA_CUDNN");
    kept_ = before != nullptr ? before : "";
    setenv("STRATA_CUDNN", "/nowhere/libcudnn.so.9", 1);
  }
  ~WithoutCudnn() { setenv("STRATA_CUDNN", kept_.c_str(), 1); }
  WithoutCudnn(const WithoutCudnn&) = delete;
  WithoutCudnn& operator=(const WithoutCudnn&) = delete;

 private:
  std::string kept_;
};

Tensor Positions(int64_t n) {
  Tensor positions = Tensor::RandomInts({n}, 0, 1, 1);
  for (int64_t i = 0; i < n; ++i) positions.set(i, static_cast<double>(i));
  return positions;
}

// qkv, positions, do -> o, lse, dqkv
GraphFn Packed(AttentionMask mask, int64_t group) {
  return [=](GraphBuilder& g, const Values& in) {
    const PackedAttention a = AttentionPacked(g, in[0], in[1], mask, group);
    return Values{a.o_BSHD, a.lse_BSH, AttentionPackedBwd(g, in[2], in[0], a.o_BSHD, a.lse_BSH, in[1], mask, group)};
  };
}
std::vector<Tensor> PackedInputs(const Sizes& z, double size = 1) {
  Tensor qkv = Tensor::Random(DType::kF64, {z.b, z.s, z.hq + 2 * z.hk, z.d}, 1);
  for (int64_t i = 0; i < qkv.size(); ++i) qkv.set(i, size * qkv.at(i));
  return {qkv, Positions(z.s), Tensor::Random(DType::kF64, {z.b, z.s, z.hq, z.d}, 2)};
}

void ExpectClose(const GraphFn& fn, const std::vector<Tensor>& inputs, const std::string& what,
                 const GpuOptions& options = {}) {
  const auto errors = GpuErrors(fn, inputs, DType::kBF16, options);
  ASSERT_TRUE(errors.ok()) << what << ": " << errors.status();
  EXPECT_LE((*errors)[0], GpuTolerance(DType::kBF16)) << what << " o";
  EXPECT_LE((*errors)[1], 5e-6) << what << " lse";
  for (size_t i = 2; i < errors->size(); ++i) {  // probabilities and their gradients are rounded
    EXPECT_LE((*errors)[i], 1.5 * GpuTolerance(DType::kBF16)) << what << " gradient " << i - 2;
  }
}

// Lengths of one row, of less than a tile, one more and one less than tiles, of tiles that several blocks share; heads alone and in
// groups that are no power of two; from 2048 keys on, with heads of 128, two blocks share dq: of an odd number of tiles, and of keys.
TEST(CudaAttentionSm90, Packed) {
  STRATA_NEEDS_GPU();
  const WithoutCudnn without;
  constexpr Sizes kSizes[] = {{1, 1, 1, 1, 1, 64},       {3, 2, 2, 63, 63, 128},   {2, 6, 2, 129, 129, 64},
                              {2, 3, 1, 127, 127, 128},  {1, 5, 5, 320, 320, 64},  {2, 4, 1, 385, 385, 128},
                              {1, 2, 1, 1025, 1025, 64}, {1, 7, 1, 384, 384, 128}, {7, 4, 4, 256, 256, 64},
                              {1, 3, 1, 2049, 2049, 128}};
  constexpr Sizes kSmall[] = {{1, 1, 1, 1, 1, 64}, {1, 2, 1, 257, 257, 64}, {1, 2, 1, 257, 257, 128}};
  for (const Sizes& z : ShapesOf(kSizes, kSmall)) {
    for (const AttentionMask mask : {AttentionMask::kCausal, AttentionMask::kFull}) {
      ExpectClose(Packed(mask, z.hq / z.hk), PackedInputs(z), Describe(z, mask));
      ExpectClose(Packed(mask, z.hq / z.hk), PackedInputs(z), "bit-exact " + Describe(z, mask),
                  {.determinism = Determinism::kBitExact});
    }
  }
}

TEST(CudaAttentionSm90, MoreAndFewerKeysThanQueries) {
  STRATA_NEEDS_GPU();
  const WithoutCudnn without;
  constexpr AttentionMask kMask = AttentionMask::kFull;
  const GraphFn fn = [](GraphBuilder& g, const Values& in) {  // q, k, v, positions of queries and keys, do
    const Value o = Attention(g, in[0], in[1], in[2], in[3], in[4], kMask), lse{o.node, 1};
    const AttentionGrads d = AttentionBwd(g, in[5], in[0], in[1], in[2], o, lse, in[3], in[4], kMask);
    return Values{o, lse, d.dq_BSHD, d.dk_BTHD, d.dv_BTHD};
  };
  constexpr Sizes kSizes[] = {{2, 4, 2, 64, 128, 64},
                              {1, 2, 1, 100, 51, 128},
                              {1, 3, 3, 300, 70, 64},
                              {2, 4, 2, 70, 300, 128},
                              {1, 4, 2, 130, 2305, 128}};
  for (const Sizes& z : kSizes) {
    const Shape q{z.b, z.s, z.hq, z.d}, k{z.b, z.t, z.hk, z.d};
    ExpectClose(fn,
                {Tensor::Random(DType::kF64, q, 1), Tensor::Random(DType::kF64, k, 2),
                 Tensor::Random(DType::kF64, k, 3), Positions(z.s), Positions(z.t), Tensor::Random(DType::kF64, q, 4)},
                Describe(z, kMask));
  }
}

// qkv, positions, do, positions of the rope -> o, lse, dqkv turned back
GraphFn PackedTurned(AttentionMask mask, int64_t group) {
  return [=](GraphBuilder& g, const Values& in) {
    const RopeAttributes rope{10000, RopeDirection::kInverse};
    const PackedAttention a = AttentionPacked(g, in[0], in[1], mask, group);
    return Values{a.o_BSHD, a.lse_BSH,
                  AttentionRopeBwd(g, in[2], in[0], a.o_BSHD, a.lse_BSH, in[1], in[3], mask, rope, group)};
  };
}

// Positions of all rows together and of each, in any order. Lengths that are multiples of 16, which the kernels turn themselves, and others.
TEST(CudaAttentionSm90, TurnsGradientsBack) {
  STRATA_NEEDS_GPU();
  const WithoutCudnn without;
  constexpr Sizes kSizes[] = {{1, 1, 1, 16, 16, 64},    {3, 2, 2, 80, 80, 128},  {2, 6, 2, 144, 144, 64},
                              {2, 4, 1, 400, 400, 128}, {3, 4, 4, 336, 336, 64}, {1, 6, 2, 1040, 1040, 128},
                              {2, 2, 1, 385, 385, 128}, {2, 3, 1, 127, 127, 64}, {1, 2, 1, 2064, 2064, 128}};
  constexpr Sizes kSmall[] = {{2, 2, 1, 272, 272, 64}, {2, 2, 1, 272, 272, 128}};
  for (const Sizes& z : ShapesOf(kSizes, kSmall)) {
    for (const Determinism determinism : {Determinism::kFast, Determinism::kBitExact}) {
      for (const Shape& positions : {Shape{z.s}, Shape{z.b, z.s}}) {
        std::vector<Tensor> inputs = PackedInputs(z);
        inputs.push_back(Tensor::RandomInts(positions, 0, 8192, 3));
        const std::string what = (determinism == Determinism::kBitExact ? "bit-exact " : "") + ToString(positions) +
                                 " " + Describe(z, AttentionMask::kCausal);
        ExpectClose(PackedTurned(AttentionMask::kCausal, z.hq / z.hk), inputs, what, {.determinism = determinism});
      }
    }
  }
}

// Nearly all of a row's weight is on few keys, and masked scores are among the largest.
TEST(CudaAttentionSm90, LargeScores) {
  STRATA_NEEDS_GPU();
  const WithoutCudnn without;
  for (const int64_t d : {64, 128}) {
    const Sizes z{1, 4, 2, 300, 300, d};
    const auto errors = GpuErrors(Packed(AttentionMask::kCausal, 2), PackedInputs(z, 3), DType::kBF16);
    ASSERT_TRUE(errors.ok()) << errors.status();
    EXPECT_LE((*errors)[0], GpuTolerance(DType::kBF16)) << d;
    EXPECT_LE((*errors)[1], 1e-5) << d;
    EXPECT_LE((*errors)[2], 5 * GpuTolerance(DType::kBF16)) << d;  // do v^T - delta nearly cancels, and o is rounded
  }
}

TEST(CudaAttentionSm90, GivesEqualBits) {
  STRATA_NEEDS_GPU();
  const GpuOptions options{.determinism = Determinism::kBitExact};
  for (const Sizes& z : {Sizes{1, 4, 2, 700, 700, 128}, Sizes{2, 3, 3, 400, 400, 64}}) {
    const std::vector<Tensor> inputs = PackedInputs(z);
    const GraphFn fn = Packed(AttentionMask::kCausal, z.hq / z.hk);
    const auto once = GpuErrors(fn, inputs, DType::kBF16, options),
               again = GpuErrors(fn, inputs, DType::kBF16, options);
    ASSERT_TRUE(once.ok() && again.ok());
    EXPECT_EQ(*once, *again) << Describe(z, AttentionMask::kCausal);
  }
}

}  // namespace
}  // namespace strata::testing
