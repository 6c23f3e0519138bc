// Backward attention on Hopper: what is done row by row before and after its products. Memory-bound.
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/attention_sm90_bwd.cuh"

namespace strata {
namespace sm90 {
namespace {

// Before: lse2 and delta of 64 queries of a head, and zeros in their sums of dq; resets the counter.
constexpr int kRowThreads = 256, kRowsABlock = 64;
template <int kD, bool kZeros>
__global__ void __launch_bounds__(kRowThreads)
    Prepare(const BackwardArgs a, const __nv_bfloat16* o, const __nv_bfloat16* d_o, const float* lse, float* lse2,
            float* delta) {
  constexpr int kLanes = kD / 8, kRows = kRowThreads / kLanes;  // threads a row, rows at a time
  const int i0 = static_cast<int>(blockIdx.x) * kRowsABlock, h = static_cast<int>(blockIdx.y),
            b = static_cast<int>(blockIdx.z);
  const int64_t head = int64_t{b} * a.hq + h;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  for (int i = i0 + static_cast<int>(threadIdx.x) / kLanes; i < i0 + kRowsABlock; i += kRows) {
    float sum = 0;
    const int64_t row = (int64_t{b} * a.s + i) * a.hq + h;
    if (i < a.s) {
      const uint4 x = *reinterpret_cast<const uint4*>(o + row * kD + lane * 8),
                  y = *reinterpret_cast<const uint4*>(d_o + row * kD + lane * 8);
      const uint32_t xs[] = {x.x, x.y, x.z, x.w}, ys[] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sum += __uint_as_float(xs[e] << 16) * __uint_as_float(ys[e] << 16);
        sum += __uint_as_float(xs[e] & 0xffff0000u) * __uint_as_float(ys[e] & 0xffff0000u);
      }
    }
#pragma unroll
    for (int x = kLanes / 2; x > 0; x /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, x);
    if (lane == 0) {
      const float l = i < a.s ? lse[row] : -INFINITY;
      lse2[head * a.padded + i] = l == -INFINITY ? INFINITY : l * kLog2E;  // no key: p is nothing
      delta[head * a.padded + i] = sum;
    }
  }
  if (blockIdx.x + blockIdx.y + blockIdx.z + threadIdx.x == 0) *a.counter = 0;
  if constexpr (kZeros) {
    float4* const dq = reinterpret_cast<float4*>(a.dq + (head * a.padded + i0) * kD);
#pragma unroll
    for (int i = 0; i < kRowsABlock * kD / 4 / kRowThreads; ++i) {
      dq[i * kRowThreads + threadIdx.x] = make_float4(0, 0, 0, 0);
    }
  }
}

// After: dq of a tile of queries, rounded. A warp has 16 rows of 64 columns.
template <int kD, int kM>
__global__ void __launch_bounds__(256) Round(const BackwardArgs a, __nv_bfloat16* dq, int64_t row) {
  constexpr int kPitch = 64 + 8;
  __shared__ alignas(16) uint16_t tiles[8][16 * kPitch];
  const int m = static_cast<int>(blockIdx.x), h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const int group = static_cast<int>(threadIdx.x) / 128, own = static_cast<int>(threadIdx.x) % 128, warp = own / 32,
            lane = own % 32;
  uint16_t* const tile = tiles[threadIdx.x / 32];
  const float* from =
      a.dq + (int64_t{b} * a.hq + h) * a.padded * kD + int64_t{m} * (kM * kD) + group * 64 * 64 + own * 4;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float4 x = *reinterpret_cast<const float4*>(from + i * 512);
    uint16_t* const to = tile + lane / 4 * kPitch + 8 * i + lane % 4 * 2;
    *reinterpret_cast<uint32_t*>(to) = Pack(x.x * a.scale, x.y * a.scale);
    *reinterpret_cast<uint32_t*>(to + 8 * kPitch) = Pack(x.z * a.scale, x.w * a.scale);
  }
  __syncwarp();
  const int column = (kM == 64 ? group * 64 : 0) + lane % 8 * 8;
  const int q0 = m * kM + (kM == 64 ? 0 : group * 64) + warp * 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int r = i * 4 + lane / 8;
    if (q0 + r < a.s) {
      *reinterpret_cast<uint4*>(dq + (int64_t{b} * a.s + q0 + r) * row + h * kD + column) =
          *reinterpret_cast<const uint4*>(tile + r * kPitch + lane % 8 * 8);
    }
  }
}

unsigned Blocks(int64_t n) { return static_cast<unsigned>(n); }

}  // namespace

absl::Status PrepareRows(const AttentionCall& c, const BackwardArgs& a, cudaStream_t stream) {
  const dim3 blocks(Blocks(a.padded / kRowsABlock), Blocks(c.hq), Blocks(c.b));
  const auto launch = [&](auto* kernel) {
    kernel<<<blocks, kRowThreads, 0, stream>>>(a, static_cast<const __nv_bfloat16*>(c.o),
                                               static_cast<const __nv_bfloat16*>(c.d_o), c.lse, a.lse2, a.delta);
  };
  const bool sums = a.dq != nullptr;
  if (c.d == 64) {
    launch(sums ? Prepare<64, true> : Prepare<64, false>);
  } else {
    launch(sums ? Prepare<128, true> : Prepare<128, false>);
  }
  return Launched("attention on wgmma: rows");
}

absl::Status RoundQueryGradient(const AttentionCall& c, const BackwardArgs& a, cudaStream_t stream) {
  const auto launch = [&](auto* kernel, int rows) {
    kernel<<<dim3(Blocks((c.s + rows - 1) / rows), Blocks(c.hq), Blocks(c.b)), 256, 0, stream>>>(
        a, static_cast<__nv_bfloat16*>(c.dq), c.q_row);
  };
  if (c.d == 64) {
    launch(Round<64, 128>, 128);
  } else {
    launch(Round<128, 64>, 64);
  }
  return Launched("attention on wgmma: dq");
}

}  // namespace sm90
}  // namespace strata
