#include "core/kernels/onednn.h"

#include <oneapi/dnnl/dnnl.h>

#include "absl/strings/str_format.h"
#include "core/base/check.h"

extern "C" {
// Exported by oneDNN beside dnnl_sgemm, with the same row-major arguments, but declared in none of its headers. Unlike
// its matmul primitive it takes sizes and strides at the call: nothing is made, looked up or kept for a shape.
dnnl_status_t dnnl_gemm_bf16bf16f32(char transa, char transb, dnnl_dim_t m, dnnl_dim_t n, dnnl_dim_t k, float alpha,
                                    const strata::BF16* a, dnnl_dim_t lda, const strata::BF16* b, dnnl_dim_t ldb,
                                    float beta, float* c, dnnl_dim_t ldc);
void omp_set_num_threads(int n);  // of the OpenMP runtime that oneDNN is built on; counts for the calling thread
}

namespace strata {
namespace {

struct Isa {
  int bits;
  const char* name;
};
constexpr Isa kIsas[] = {{dnnl_cpu_isa_avx512_core_amx, "AMX"},
                         {dnnl_cpu_isa_avx512_core_bf16, "AVX-512 BF16"},
                         {dnnl_cpu_isa_avx512_core, "AVX-512"},
                         {dnnl_cpu_isa_avx2, "AVX2"},
                         {dnnl_cpu_isa_sse41, "SSE4.1"}};

OneDnnFacts Describe() {
  const dnnl_version_t* v = dnnl_version();
  const int isa = dnnl_get_effective_cpu_isa();
  const auto has = [isa](int bits) { return (isa & bits) == bits; };
  OneDnnFacts facts{.version = absl::StrFormat("oneDNN %d.%d.%d", v->major, v->minor, v->patch),
                    .runs_bf16 = has(dnnl_cpu_isa_avx512_core),
                    .native_bf16 = has(dnnl_cpu_isa_avx512_core_bf16)};
  for (const Isa& known : kIsas) {
    if (facts.isa.empty() && has(known.bits)) facts.isa = known.name;
  }
  return facts;
}

char Trans(Transpose t) { return t == Transpose::kNo ? 'N' : 'T'; }

}  // namespace

const OneDnnFacts& DescribeOneDnn() {
  static const OneDnnFacts facts = Describe();
  return facts;
}

void OneDnnGemm(int64_t m, int64_t n, int64_t k, Matrix<const BF16> a, Matrix<const BF16> b, double beta,
                Matrix<float> c) {
  omp_set_num_threads(1);
  const dnnl_status_t status = dnnl_gemm_bf16bf16f32(Trans(a.trans), Trans(b.trans), m, n, k, 1, a.data, a.ld, b.data,
                                                     b.ld, static_cast<float>(beta), c.data, c.ld);
  STRATA_CHECK(status == dnnl_success);
}

}  // namespace strata
