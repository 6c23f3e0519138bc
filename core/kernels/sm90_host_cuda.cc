#include "core/kernels/sm90_host.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/check.h"
#include "core/base/status.h"

namespace strata::sm90 {
namespace {

constexpr size_t kMostDims = 5;

// The driver's cuTensorMapEncodeTiled, without linking to it.
absl::StatusOr<decltype(&cuTensorMapEncodeTiled)> Encoder() {
  constexpr unsigned kSince = 12000;
  void* fn = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, kSince, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess || fn == nullptr) {
    return absl::FailedPreconditionError("the GPU's driver has no cuTensorMapEncodeTiled");
  }
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(fn);
}

}  // namespace

bool KernelsRun(int compute_major) {
#ifdef STRATA_SM90A
  constexpr bool kBuilt = true;
#else
  constexpr bool kBuilt = false;
#endif
  return kBuilt && compute_major == 9;
}

absl::StatusOr<CUtensorMap> BF16Map(const void* x, std::initializer_list<int64_t> dims,
                                    std::initializer_list<int64_t> strides, std::initializer_list<int> box) {
  STRATA_CHECK(dims.size() <= kMostDims && strides.size() + 1 == dims.size() && box.size() == dims.size());
  static const auto encoder = Encoder();
  RETURN_IF_ERROR(encoder.status());
  std::array<cuuint64_t, kMostDims> sizes{}, steps{};
  std::array<cuuint32_t, kMostDims> boxes{}, ones;
  std::copy(dims.begin(), dims.end(), sizes.begin());
  std::transform(strides.begin(), strides.end(), steps.begin(),
                 [](int64_t n) { return static_cast<cuuint64_t>(2 * n); });
  std::copy(box.begin(), box.end(), boxes.begin());
  ones.fill(1);
  CUtensorMap map;
  const CUresult r =
      (*encoder)(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(dims.size()), const_cast<void*>(x),
                 sizes.data(), steps.data(), boxes.data(), ones.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
                 CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (r == CUDA_SUCCESS) return map;
  return absl::FailedPreconditionError(absl::StrFormat("no tensor map of [%s] with strides [%s] at %p: CUDA error %d",
                                                       absl::StrJoin(dims, ", "), absl::StrJoin(strides, ", "), x,
                                                       static_cast<int>(r)));
}

}  // namespace strata::sm90
