#include "core/kernels/attention_sm90.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/attention_sm90_host.h"

namespace strata {
namespace sm90 {
namespace {

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

absl::StatusOr<CUtensorMap> HeadsMap(const void* x, int64_t b, int64_t rows, int64_t heads, int64_t d,
                                     int64_t row_stride, int box_rows) {
  static const auto encoder = Encoder();
  RETURN_IF_ERROR(encoder.status());
  constexpr uint64_t kSize = 2;
  const auto u = [](int64_t n) { return static_cast<cuuint64_t>(n); };
  const cuuint64_t dims[] = {u(d), u(heads), u(rows), u(b)};
  const cuuint64_t strides[] = {u(d) * kSize, u(row_stride) * kSize, u(rows * row_stride) * kSize};
  const cuuint32_t box[] = {64, 1, static_cast<cuuint32_t>(box_rows), 1}, steps[] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult r = (*encoder)(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(x), dims, strides, box,
                                steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (r != CUDA_SUCCESS) {
    return absl::FailedPreconditionError(
        absl::StrFormat("no tensor map of [%d, %d, %d, %d] with rows of %d elements at %p: CUDA error %d", b, rows,
                        heads, d, row_stride, x, static_cast<int>(r)));
  }
  return map;
}

absl::StatusOr<int> Processors() {
  int device = 0, n = 0;
  RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&device), "cudaGetDevice"));
  RETURN_IF_ERROR(CudaStatus(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device), "attention"));
  return n;
}

TileOrder OrderOf(int64_t tiles, int64_t heads, int64_t heads_per_kv, int64_t kv_head_bytes, int64_t cache_bytes) {
  const int64_t group = std::clamp<int64_t>(cache_bytes / kv_head_bytes, 1, heads) * heads_per_kv;
  return {static_cast<int>(tiles), static_cast<int>(heads), static_cast<int>(std::min(group, heads))};
}

}  // namespace sm90

bool Sm90AttentionTakes(const AttentionCall& c, int compute_major) {
#ifndef STRATA_SM90A
  return false;
#endif
  constexpr int64_t kMaxRows = 1 << 20;  // coordinates and tile numbers are int32
  uintptr_t addresses = 0;
  for (const void* p : {c.q, c.k, c.v, c.d_o, static_cast<const void*>(c.o), static_cast<const void*>(c.dq),
                        static_cast<const void*>(c.dk), static_cast<const void*>(c.dv)}) {
    addresses |= reinterpret_cast<uintptr_t>(p);
  }
  return compute_major == 9 && addresses % 16 == 0 && c.dtype == DType::kBF16 && (c.d == 64 || c.d == 128) &&
         !c.documents && c.by_index && c.hk > 0 && c.hq == c.hk * c.group && c.first_q == c.first_k * c.group &&
         c.q_row % 8 == 0 && c.kv_row % 8 == 0 && c.b > 0 && c.s > 0 && c.t > 0 &&
         (c.mask == AttentionMask::kFull || c.s == c.t) && c.s <= kMaxRows && c.t <= kMaxRows && c.b * c.hq < kMaxRows;
}

}  // namespace strata
