#include "core/ops/quantize.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/base/philox.h"
#include "core/exec/device.h"

namespace strata {
namespace {

constexpr int64_t kBlocks = 6, kElements = kBlocks * kQuantBlock;

// Normal numbers, each block of another size; a block of zeros among them.
std::vector<double> Elements(uint64_t seed) {
  std::vector<double> x(kElements);
  for (int64_t i = 0; i < kElements; ++i) {
    const int64_t block = i / kQuantBlock;
    x[i] = block == 2 ? 0 : std::pow(10.0, block - 3) * PhiloxNormal(Philox(seed, 1, static_cast<uint64_t>(i)));
  }
  return x;
}

absl::Status Run(const Op& op, TensorRef in, TensorRef out) {
  const KernelTable kernels = CpuKernels();
  const absl::StatusOr<const Kernel*> kernel = kernels.Find(op.name(), IsFloating(in.dtype) ? in.dtype : out.dtype);
  if (!kernel.ok()) return kernel.status();
  return (*kernel)->run({.op = op, .in = {&in, 1}, .out = {&out, 1}});
}

// The op that `make` adds, on a flat input of f64.
template <typename Make>
std::shared_ptr<const Op> OpOf(const TensorSpec& in, const Make& make) {
  GraphBuilder g;
  const Value v = make(g, g.Input("x", in));
  EXPECT_TRUE(g.status().ok()) << g.status();
  return g.graph().nodes[v.node].op;
}

std::vector<uint8_t> Quantized(std::vector<double>& x, const QuantSpec& spec) {
  std::vector<uint8_t> bytes(QuantizedBytes(kElements, spec.bits));
  const auto op = OpOf({DType::kF64, {kElements}, {}}, [&](GraphBuilder& g, Value v) { return Quantize(g, v, spec); });
  EXPECT_EQ(Run(*op, Contiguous(x.data(), DType::kF64, {kElements}),
                Contiguous(bytes.data(), DType::kU8, {static_cast<int64_t>(bytes.size())})),
            absl::OkStatus());
  return bytes;
}

std::vector<double> Dequantized(std::vector<uint8_t>& bytes, QuantBits bits, int64_t rows = 0) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  const Shape shape = rows == 0 ? Shape{size} : Shape{rows, size / rows};
  std::vector<double> x(shape.back() / RecordBytes(bits) * kQuantBlock);
  const auto op = OpOf({DType::kU8, shape, {}}, [&](GraphBuilder& g, Value v) {
    return rows == 0 ? Dequantize(g, v, bits, DType::kF64) : DequantizeSum(g, v, bits, DType::kF64);
  });
  EXPECT_EQ(Run(*op, Contiguous(bytes.data(), DType::kU8, shape),
                Contiguous(x.data(), DType::kF64, {static_cast<int64_t>(x.size())})),
            absl::OkStatus());
  return x;
}

double LargestOf(const std::vector<double>& x, int64_t block) {
  double amax = 0;
  for (int64_t i = 0; i < kQuantBlock; ++i) amax = std::max(amax, std::abs(x[block * kQuantBlock + i]));
  return amax;
}

TEST(Quantize, AnElementComesBackWithinHalfTheScaleOfItsBlock) {
  for (const QuantBits bits : {QuantBits::k8, QuantBits::k4}) {
    std::vector<double> x = Elements(3);
    std::vector<uint8_t> bytes = Quantized(x, {.bits = bits});
    const std::vector<double> y = Dequantized(bytes, bits);
    double worst = 0;
    for (int64_t i = 0; i < kElements; ++i) {
      const double amax = LargestOf(x, i / kQuantBlock), half = amax / static_cast<double>(2 * QuantMax(bits));
      ASSERT_LE(std::abs(y[i] - x[i]), half + amax * 3e-7) << i;
      if (half > 0) worst = std::max(worst, std::abs(y[i] - x[i]) / half);
    }
    EXPECT_GT(worst, 0.95);  // the bound is tight
  }
}

TEST(Quantize, NotFiniteComesBackAsNaNInItsBlockAlone) {
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    std::vector<double> x = Elements(3);
    x[kQuantBlock + 7] = bad;
    std::vector<uint8_t> bytes = Quantized(x, {.bits = QuantBits::k4});
    const std::vector<double> y = Dequantized(bytes, QuantBits::k4);
    for (int64_t i = 0; i < kElements; ++i) EXPECT_EQ(std::isnan(y[i]), i / kQuantBlock == 1) << i;
  }
}

TEST(Quantize, RowsAreSummed) {
  std::vector<double> x = Elements(5);
  std::vector<uint8_t> bytes = Quantized(x, {.bits = QuantBits::k8, .rows = 1});
  const std::vector<double> each = Dequantized(bytes, QuantBits::k8), sum = Dequantized(bytes, QuantBits::k8, 3);
  ASSERT_EQ(sum.size(), each.size() / 3);
  const size_t n = sum.size();
  for (size_t i = 0; i < n; ++i) EXPECT_EQ(sum[i], each[i] + each[n + i] + each[2 * n + i]);
}

TEST(Quantize, TakesWholeBlocks) {
  GraphBuilder g;
  Quantize(g, g.Input("x", {DType::kF32, {300}, {}}), {});
  EXPECT_TRUE(absl::IsInvalidArgument(g.status())) << g.status();
}

}  // namespace
}  // namespace strata
