#pragma once
// oneDNN's matrix products, as gemm.cc calls them. A build without oneDNN (STRATA_ONEDNN=OFF) has none. Thread-safe.

#include <string>

#include "core/kernels/gemm.h"

namespace strata {

struct OneDnnFacts {
  std::string version;       // "oneDNN 2.6.3"; empty: not in this build
  std::string isa;           // the instructions that its kernels use here: "AVX2", "AVX-512 BF16", "AMX"
  bool runs_bf16 = false;    // it multiplies bf16 here: needs AVX-512
  bool native_bf16 = false;  // the CPU does: AVX-512 BF16 or AMX
};
const OneDnnFacts& DescribeOneDnn();

// c[m, n] = a[m, k] b[k, n] + beta c on the calling thread, in float32. Only where runs_bf16.
void OneDnnGemm(int64_t m, int64_t n, int64_t k, Matrix<const BF16> a, Matrix<const BF16> b, double beta,
                Matrix<float> c);

}  // namespace strata
