// In place of onednn.cc where the build has no oneDNN.

#include "core/base/check.h"
#include "core/kernels/onednn.h"

namespace strata {

const OneDnnFacts& DescribeOneDnn() {
  static const OneDnnFacts facts;
  return facts;
}

void OneDnnGemm(int64_t, int64_t, int64_t, Matrix<const BF16>, Matrix<const BF16>, double, Matrix<float>) {
  STRATA_CHECK(false && "runs_bf16 is false");
}

}  // namespace strata
