#include "core/ops/quantize.h"

#include <cstring>

#include "core/exec/device.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

constexpr int64_t kBlocks = 12;
const QuantBits kBits[] = {QuantBits::k8, QuantBits::k4};

GraphFn QuantizeWith(const QuantSpec& spec) {
  return [spec](GraphBuilder& g, const Values& in) { return Values{Quantize(g, in[0], spec)}; };
}

// Records are the CPU's to the bit: ranks of one job need not be alike.
TEST(CudaQuantize, RecordsHaveTheBitsOfTheCpu) {
  STRATA_NEEDS_GPU();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Tensor x = Tensor::Random(dtype, {kBlocks * kQuantBlock}, 3);
    for (int64_t i = 0; i < kQuantBlock; ++i) x.set(i, 0);
    x.set(kQuantBlock + 5, INFINITY);
    for (int64_t i = 0; i < kQuantBlock; ++i) x.set(2 * kQuantBlock + i, 1e-30 * static_cast<double>(i));
    for (const QuantBits bits : kBits) {
      for (const int64_t rows : {0, 2}) {
        const auto own_row = [rows](std::span<TensorRef>, std::span<TensorRef> out) {
          if (rows > 0) out[0].shape[0] = 1;  // of the rows a rank has one: all that the kernel writes
        };
        const auto errors = GpuKernelErrors(QuantizeWith({.bits = bits, .rows = rows}), {x}, own_row);
        ASSERT_TRUE(errors.ok()) << errors.status();
        EXPECT_EQ(errors->at(0), 0) << Name(dtype) << " bits " << static_cast<int>(bits) << " rows " << rows;
      }
    }
  }
}

// u8 [rows, bytes] of random blocks.
Tensor Records(int64_t rows, QuantBits bits) {
  const int64_t bytes = QuantizedBytes(kBlocks * kQuantBlock, bits);
  Tensor all = Tensor::Zeros(DType::kU8, {rows, bytes});
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = Call(QuantizeWith({.bits = bits}), {Tensor::Random(DType::kF32, {kBlocks * kQuantBlock}, 5 + r)});
    if (row.ok()) std::memcpy(all.data.data() + r * bytes, row->at(0).data.data(), bytes);
  }
  return all;
}

TEST(CudaQuantize, DequantizedIsTheCpuToTheBit) {
  STRATA_NEEDS_GPU();
  for (const QuantBits bits : kBits) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      Tensor records = Records(1, bits);
      records.shape = Shape{records.shape[1]};
      const auto errors = GpuKernelErrors(
          [&](GraphBuilder& g, const Values& in) { return Values{Dequantize(g, in[0], bits, dtype)}; }, {records});
      ASSERT_TRUE(errors.ok()) << errors.status();
      EXPECT_EQ(errors->at(0), 0) << Name(dtype) << " bits " << static_cast<int>(bits);
    }
    for (const int64_t rows : {1, 2, 5}) {
      const auto errors = GpuKernelErrors(
          [&](GraphBuilder& g, const Values& in) { return Values{DequantizeSum(g, in[0], bits, DType::kF32)}; },
          {Records(rows, bits)});
      ASSERT_TRUE(errors.ok()) << errors.status();
      EXPECT_EQ(errors->at(0), 0) << rows << " rows, bits " << static_cast<int>(bits);
    }
  }
}

}  // namespace
}  // namespace strata::testing
