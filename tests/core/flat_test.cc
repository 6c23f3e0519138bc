// Parts of a flat tensor in their places.

#include "core/ops/flat.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/op_checks.h"

namespace strata {
namespace {

using testing::Tensor;
using Values = std::vector<Value>;

TEST(Pack, PutsPartsAmongZerosAndRoundsThoseOfFloat32) {
  const double ulp = std::ldexp(1, -7);  // of bf16, at 1
  const auto out = testing::Call(
      [](GraphBuilder& g, const Values& in) {
        return Values{Pack(g, {in[0], in[1]}, {1, 4}, 7, DType::kBF16)};
      },
      {Tensor::Of({2}, {1, 2}, DType::kBF16), Tensor::Of({2}, {1 + 0.4 * ulp, 1 + 0.6 * ulp}, DType::kF32)});
  ASSERT_TRUE(out.ok()) << out.status();
  ASSERT_EQ((*out)[0].dtype, DType::kBF16);
  EXPECT_EQ(MaxAbsDiff((*out)[0], Tensor::Of({7}, {0, 1, 2, 0, 1, 1 + ulp, 0})), 0);
}

TEST(Pack, RefusesPartsThatItWouldHaveToWiden) {
  const auto error = [](DType part, DType whole) {
    return testing::BuildError(
        [whole](GraphBuilder& g, const Values& in) { return Values{Pack(g, {in[0]}, {0}, 4, whole)}; },
        {{part, {4}, {}}});
  };
  EXPECT_TRUE(error(DType::kF32, DType::kBF16).ok());
  EXPECT_FALSE(error(DType::kBF16, DType::kF32).ok());
  EXPECT_FALSE(error(DType::kF64, DType::kBF16).ok());
}

}  // namespace
}  // namespace strata
