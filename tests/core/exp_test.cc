#include "core/kernels/exp_cpu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace strata {
namespace {

TEST(Exp, FloatIsCloseEverywhere) {
  std::vector<float> x, y;
  for (double v = -87.3; v < 88.3; v += 1e-3) x.push_back(static_cast<float>(v));
  y = x;
  ExpInPlace(y.data(), static_cast<int64_t>(y.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    ASSERT_LE(std::abs(y[i] - exact), 2e-7 * exact) << x[i];
  }
}

TEST(Exp, Limits) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  float x[] = {-kInf, -88, 0, 89, kInf, std::numeric_limits<float>::quiet_NaN()};
  ExpInPlace(x, 6);
  EXPECT_EQ(x[0], 0);
  EXPECT_EQ(x[1], 0);
  EXPECT_EQ(x[2], 1);
  EXPECT_EQ(x[3], kInf);
  EXPECT_EQ(x[4], kInf);
  EXPECT_TRUE(std::isnan(x[5]));
}

// A vector loop has a scalar tail: an element's bits must not depend on where it falls.
TEST(Exp, SameBitsWhateverTheLength) {
  for (int n = 1; n <= 40; ++n) {
    std::vector<float> x(n, -1.2345f);
    ExpInPlace(x.data(), n);
    for (float v : x) ASSERT_EQ(v, x[0]) << n;
    float one = -1.2345f;
    ExpInPlace(&one, 1);
    ASSERT_EQ(one, x[0]) << n;
  }
}

}  // namespace
}  // namespace strata
