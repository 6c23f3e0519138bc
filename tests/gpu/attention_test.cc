#include "core/ops/attention.h"

#include <cstdlib>
#include <span>

#include "core/ops/elementwise.h"
#include "core/ops/fused.h"
#include "core/ops/move.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

struct Sizes {
  int64_t b, hq, hk, s, t, d;
};
// Rows of 16 bytes and not, tiles that are full and not, groups of query heads, more and fewer keys than queries.
constexpr Sizes kAllSizes[] = {{2, 4, 4, 64, 64, 64},    {2, 4, 2, 128, 128, 128}, {1, 6, 2, 257, 257, 64},
                               {2, 3, 1, 96, 96, 40},    {1, 2, 2, 70, 70, 20},    {1, 2, 1, 65, 65, 33},
                               {1, 2, 2, 130, 130, 256}, {1, 4, 2, 512, 512, 128}};
constexpr Sizes kSmallSizes[] = {{1, 2, 1, 65, 65, 64},
                                 {1, 2, 1, 65, 65, 128},
                                 {1, 2, 2, 70, 70, 20},
                                 {1, 2, 1, 65, 65, 33},
                                 {1, 1, 1, 66, 66, 256}};
const std::span<const Sizes> kSizes = ShapesOf(kAllSizes, kSmallSizes);
constexpr Sizes kCrossSizes[] = {{2, 4, 2, 64, 128, 64}, {1, 2, 1, 100, 51, 128}, {1, 3, 3, 33, 70, 18}};

// An error in a score is the same error in a probability; cuDNN rounds probabilities and their gradients to bf16.
struct Tolerances {
  double o, lse, gradient;
};
Tolerances TolerancesOf(DType t) { return {GpuTolerance(t), 5e-6, t == DType::kF32 ? 5e-6 : 1.5 * GpuTolerance(t)}; }

void ExpectClose(const GraphFn& fn, const std::vector<Tensor>& inputs, const std::string& what,
                 const GpuOptions& options = {}) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto errors = GpuErrors(fn, inputs, dtype, options);
    ASSERT_TRUE(errors.ok()) << what << ": " << errors.status();
    const Tolerances tolerance = TolerancesOf(dtype);
    EXPECT_LE((*errors)[0], tolerance.o) << what << " o " << Name(dtype);
    EXPECT_LE((*errors)[1], tolerance.lse) << what << " lse " << Name(dtype);
    for (size_t i = 2; i < errors->size(); ++i) {
      EXPECT_LE((*errors)[i], tolerance.gradient) << what << " gradient " << i - 2 << " " << Name(dtype);
    }
  }
}

std::string Describe(const Sizes& z, AttentionMask mask) {
  return std::string(mask == AttentionMask::kCausal ? "causal" : "full") + " b " + std::to_string(z.b) + " heads " +
         std::to_string(z.hq) + "/" + std::to_string(z.hk) + " s " + std::to_string(z.s) + "/" + std::to_string(z.t) +
         " d " + std::to_string(z.d);
}

Tensor Rising(int64_t n) {
  Tensor positions = Tensor::RandomInts({n}, 0, 1, 1);
  for (int64_t i = 0; i < n; ++i) positions.set(i, static_cast<double>(3 * i + 5));
  return positions;
}

// qkv, positions, do(, starts) -> o, lse, dqkv
GraphFn Packed(AttentionMask mask, int64_t group) {
  return [=](GraphBuilder& g, const Values& in) {
    const Value starts = in.size() > 3 ? in[3] : Value{};
    const PackedAttention a = AttentionPacked(g, in[0], in[1], mask, group, starts);
    return Values{a.o_BSHD, a.lse_BSH,
                  AttentionPackedBwd(g, in[2], in[0], a.o_BSHD, a.lse_BSH, in[1], mask, group, starts)};
  };
}

// The same with positions of the rope before the starts, and dqkv turned back.
GraphFn PackedTurned(AttentionMask mask, int64_t group) {
  return [=](GraphBuilder& g, const Values& in) {
    const Value starts = in.size() > 4 ? in[4] : Value{};
    const RopeAttributes rope{500, RopeDirection::kInverse};
    const PackedAttention a = AttentionPacked(g, in[0], in[1], mask, group, starts);
    return Values{a.o_BSHD, a.lse_BSH,
                  AttentionRopeBwd(g, in[2], in[0], a.o_BSHD, a.lse_BSH, in[1], in[3], mask, rope, group, starts)};
  };
}

// q, k, v, positions, do -> o, lse, dq, dk, dv
GraphFn Separate(AttentionMask mask) {
  return [=](GraphBuilder& g, const Values& in) {
    const Value o = Attention(g, in[0], in[1], in[2], in[3], in[4], mask), lse{o.node, 1};
    const AttentionGrads d = AttentionBwd(g, in[5], in[0], in[1], in[2], o, lse, in[3], in[4], mask);
    return Values{o, lse, d.dq_BSHD, d.dk_BTHD, d.dv_BTHD};
  };
}

void ExpectPackedClose(const Sizes& z, AttentionMask mask, const std::string& what, const GpuOptions& options = {}) {
  const Tensor qkv = Tensor::Random(DType::kF64, {z.b, z.s, z.hq + 2 * z.hk, z.d}, 1),
               d_o = Tensor::Random(DType::kF64, {z.b, z.s, z.hq, z.d}, 2);
  ExpectClose(Packed(mask, z.hq / z.hk), {qkv, Rising(z.s), d_o}, what + Describe(z, mask), options);
}

std::vector<Tensor> SeparateInputs(const Sizes& z) {
  const Shape q{z.b, z.s, z.hq, z.d}, k{z.b, z.t, z.hk, z.d};
  return {Tensor::Random(DType::kF64, q, 1),     Tensor::Random(DType::kF64, k, 2),
          Tensor::Random(DType::kF64, k, 3),     Tensor::RandomInts({z.s}, 0, 100, 4),
          Tensor::RandomInts({z.t}, 20, 120, 5),  // some queries see no key
          Tensor::Random(DType::kF64, q, 6)};
}

TEST(CudaAttention, Packed) {
  STRATA_NEEDS_GPU();
  for (const Sizes& z : kSizes) {
    ExpectPackedClose(z, AttentionMask::kCausal, "");
    ExpectPackedClose(z, AttentionMask::kFull, "");
  }
}

TEST(CudaAttention, PositionsInAnyOrder) {
  STRATA_NEEDS_GPU();
  for (const Sizes& z : kSizes) {
    ExpectClose(Separate(AttentionMask::kCausal), SeparateInputs(z), Describe(z, AttentionMask::kCausal));
  }
  for (const Sizes& z : kCrossSizes) {
    for (const AttentionMask mask : {AttentionMask::kCausal, AttentionMask::kFull}) {
      ExpectClose(Separate(mask), SeparateInputs(z), Describe(z, mask));
    }
  }
}

// The documents of a row of s tokens, by their lengths, in turn until the row is full.
struct Documents {
  const char* name;
  std::vector<int64_t> lengths;
};
const Documents kAllDocuments[] = {{"one a row", {1 << 20}},
                                   {"one token each", {1}},
                                   {"of 41 and 1", {41, 1}},
                                   {"over tiles", {100, 1, 1, 190, 3}},
                                   {"of whole tiles", {64, 128}}};
const Documents kSmallDocuments[] = {{"of 41 and 1", {41, 1}}};
const std::span<const Documents> kDocuments = ShapesOf(kAllDocuments, kSmallDocuments);

// starts[b, s]: the position of the first token of each token's document. Row b begins with document b.
Tensor StartsOf(const Documents& documents, int64_t rows, const Tensor& positions) {
  const int64_t s = positions.size();
  Tensor starts = Tensor::RandomInts({rows, s}, 0, 1, 1);
  for (int64_t b = 0; b < rows; ++b) {
    size_t next = static_cast<size_t>(b);
    for (int64_t i = 0, end = 0, begin = 0; i < s; ++i) {
      if (i == end) begin = i, end += documents.lengths[next++ % documents.lengths.size()];
      starts.set(b * s + i, positions.at(begin));
    }
  }
  return starts;
}

enum class Cases : uint8_t { kAll, kSome };  // some: cuDNN makes a plan for each, which takes a second
void ExpectPackedDocumentsClose(const std::string& what, Cases cases, const GpuOptions& options = {}) {
  for (const Documents& documents : kDocuments) {
    for (const Sizes& z : kSizes) {
      if (cases == Cases::kSome && !SmallShapes() && z.s != 257 && &documents != &kAllDocuments[3]) continue;
      const Tensor qkv = Tensor::Random(DType::kF64, {z.b, z.s, z.hq + 2 * z.hk, z.d}, 1), positions = Rising(z.s),
                   d_o = Tensor::Random(DType::kF64, {z.b, z.s, z.hq, z.d}, 2);
      ExpectClose(Packed(AttentionMask::kCausal, z.hq / z.hk),
                  {qkv, positions, d_o, StartsOf(documents, z.b, positions)},
                  what + documents.name + " " + Describe(z, AttentionMask::kCausal), options);
    }
  }
}

TEST(CudaAttention, PackedDocuments) {
  STRATA_NEEDS_GPU();
  ExpectPackedDocumentsClose("", Cases::kSome);
}

TEST(CudaAttention, GradientsTurnedBack) {
  STRATA_NEEDS_GPU();
  for (const Sizes& z : kSizes) {
    if (z.d % 2 != 0) continue;
    const Tensor qkv = Tensor::Random(DType::kF64, {z.b, z.s, z.hq + 2 * z.hk, z.d}, 1), positions = Rising(z.s),
                 d_o = Tensor::Random(DType::kF64, {z.b, z.s, z.hq, z.d}, 2);
    const std::vector<Tensor> inputs = {qkv, positions, d_o, Tensor::RandomInts({z.b, z.s}, 0, 300, 3)};
    ExpectClose(PackedTurned(AttentionMask::kFull, z.hq / z.hk), inputs, Describe(z, AttentionMask::kFull));
    std::vector<Tensor> documents = inputs;
    documents.push_back(StartsOf(kSmallDocuments[0], z.b, positions));
    ExpectClose(PackedTurned(AttentionMask::kCausal, z.hq / z.hk), documents,
                "documents " + Describe(z, AttentionMask::kCausal));
  }
}

// Rows of several documents of typical length: cuDNN or the plain kernels, whichever is faster.
TEST(CudaAttention, PackedDocumentsInLongRows) {
  STRATA_NEEDS_GPU();
  const Tensor qkv = Tensor::Random(DType::kF64, {2, 1536, 8, 64}, 1), positions = Rising(1536),
               d_o = Tensor::Random(DType::kF64, {2, 1536, 4, 64}, 2);
  for (const Documents& documents : {kAllDocuments[3], Documents{"of 500", {500}}}) {
    ExpectClose(Packed(AttentionMask::kCausal, 2), {qkv, positions, d_o, StartsOf(documents, 2, positions)},
                documents.name);
  }
}

TEST(CudaAttention, PackedDocumentsWithEqualBits) {
  STRATA_NEEDS_GPU();
  ExpectPackedDocumentsClose("deterministic ", Cases::kSome, {.determinism = Determinism::kBitExact});
}

// q, k, v, positions, do, starts -> o, lse, dq + do, dk | dv. Not alone, for of documents of one token dq and dk are nothing.
TEST(CudaAttention, DocumentsOfARowDoNotSeeEachOther) {
  STRATA_NEEDS_GPU();
  const GraphFn fn = [](GraphBuilder& g, const Values& in) {
    constexpr AttentionMask kMask = AttentionMask::kCausal;
    const Value o = Attention(g, in[0], in[1], in[2], in[3], in[3], kMask, in[5]), lse{o.node, 1};
    const AttentionGrads d = AttentionBwd(g, in[4], in[0], in[1], in[2], o, lse, in[3], in[3], kMask, in[5]);
    return Values{o, lse, Add(g, d.dq_BSHD, in[4]), Concat(g, {d.dk_BTHD, d.dv_BTHD}, 2)};
  };
  for (const Documents& documents : kDocuments) {
    for (const Sizes& z : kSizes) {
      const std::vector<Tensor> x = SeparateInputs(z);
      const Tensor positions = Rising(z.s);
      ExpectClose(fn, {x[0], x[1], x[2], positions, x[5], StartsOf(documents, z.b, positions)},
                  std::string(documents.name) + " " + Describe(z, AttentionMask::kCausal));
    }
  }
}

TEST(CudaAttention, DeterministicBackward) {
  STRATA_NEEDS_GPU();
  const GpuOptions options{.determinism = Determinism::kBitExact};
  for (const Sizes& z : kSizes) ExpectPackedClose(z, AttentionMask::kCausal, "deterministic ", options);
  const Sizes z = kSizes.back();
  const std::vector<Tensor> inputs = {Tensor::Random(DType::kF64, {z.b, z.s, z.hq + 2 * z.hk, z.d}, 1), Rising(z.s),
                                      Tensor::Random(DType::kF64, {z.b, z.s, z.hq, z.d}, 2)};
  const auto once = GpuErrors(Packed(AttentionMask::kCausal, z.hq / z.hk), inputs, DType::kBF16, options);
  const auto again = GpuErrors(Packed(AttentionMask::kCausal, z.hq / z.hk), inputs, DType::kBF16, options);
  ASSERT_TRUE(once.ok() && again.ok());
  EXPECT_EQ(*once, *again);
}

TEST(CudaAttention, OurKernelsTakeOverWhereCudnnIsMissing) {
  STRATA_NEEDS_GPU();
  const char* before = std::getenv("STRATA_CUDNN");
  const std::string kept = before != nullptr ? before : "";
  setenv("STRATA_CUDNN", "/nowhere/libcudnn.so.9", 1);
  for (const Sizes& z : kSizes) ExpectPackedClose(z, AttentionMask::kCausal, "plain ");
  ExpectPackedDocumentsClose("plain ", Cases::kAll);
  setenv("STRATA_CUDNN", kept.c_str(), 1);
}

}  // namespace
}  // namespace strata::testing
