#include "core/kernels/normal_cpu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/base/philox.h"

namespace strata {
namespace {

TEST(Normal, AreTheStreamsNumbers) {
  for (const uint64_t first : {uint64_t{0}, uint64_t{1} << 32, (uint64_t{1} << 40) - 100}) {
    std::vector<double> x(100000);
    FillNormals(3, HashName("w"), first, x);
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_NEAR(x[i], PhiloxNormal(Philox(3, HashName("w"), first + i)), 1e-14) << i;
    }
  }
}

TEST(Normal, SameBitsWhateverTheLength) {
  std::vector<double> all(1000);
  FillNormals(1, 2, 0, all);
  for (const size_t n : {1, 3, 255, 256, 257, 700}) {
    std::vector<double> x(n);
    FillNormals(1, 2, 17, x);
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(x[i], all[17 + i]) << n << " " << i;
  }
  FillNormals(1, 2, 0, {});
}

}  // namespace
}  // namespace strata
