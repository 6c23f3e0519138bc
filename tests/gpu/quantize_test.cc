#include "core/ops/quantize.h"

#include "core/exec/device.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

// Records are the CPU's to the bit: ranks of one job need not be alike.
TEST(CudaQuantize, RecordsHaveTheBitsOfTheCpu) {
  STRATA_NEEDS_GPU();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const QuantSpec& spec : {QuantSpec{}, QuantSpec{.bits = QuantBits::k4, .rows = 2}}) {
      const Tensor x = Tensor::Random(dtype, {12 * kQuantBlock}, 3);
      const auto errors =
          GpuKernelErrors([&](GraphBuilder& g, const Values& in) { return Values{Quantize(g, in[0], spec)}; }, {x});
      ASSERT_TRUE(errors.ok()) << errors.status();
      EXPECT_EQ(errors->at(0), 0) << Name(dtype) << " bits " << static_cast<int>(spec.bits);
    }
  }
}

}  // namespace
}  // namespace strata::testing
