#include "core/kernels/attention_sm90.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/attention_sm90_host.h"
#include "core/kernels/sm90_host.h"

namespace strata {
namespace sm90 {

absl::StatusOr<CUtensorMap> HeadsMap(const void* x, int64_t b, int64_t rows, int64_t heads, int64_t d,
                                     int64_t row_stride, int box_rows) {
  return BF16Map(x, {d, heads, rows, b}, {d, row_stride, rows * row_stride}, {64, 1, box_rows, 1});
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

bool Sm90AttentionTurns(const AttentionCall& c) { return c.turn.count > 0 && c.s % 16 == 0 && c.s == c.t; }

bool Sm90AttentionTakes(const AttentionCall& c, int compute_major) {
  constexpr int64_t kMaxRows = 1 << 20;  // coordinates and tile numbers are int32
  uintptr_t addresses = 0;
  for (const void* p : {c.q, c.k, c.v, c.d_o, static_cast<const void*>(c.o), static_cast<const void*>(c.dq),
                        static_cast<const void*>(c.dk), static_cast<const void*>(c.dv)}) {
    addresses |= reinterpret_cast<uintptr_t>(p);
  }
  return sm90::KernelsRun(compute_major) && addresses % 16 == 0 && c.dtype == DType::kBF16 &&
         (c.d == 64 || c.d == 128) && !c.documents && c.by_index && c.hk > 0 && c.hq == c.hk * c.group &&
         c.first_q == c.first_k * c.group && c.q_row % 8 == 0 && c.kv_row % 8 == 0 && c.b > 0 && c.s > 0 && c.t > 0 &&
         (c.mask == AttentionMask::kFull || c.s == c.t) && c.s <= kMaxRows && c.t <= kMaxRows && c.b * c.hq < kMaxRows;
}

}  // namespace strata
