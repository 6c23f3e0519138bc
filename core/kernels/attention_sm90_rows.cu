// Backward attention on Hopper: what is done row by row before and after its products. Memory-bound.
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/attention_sm90_rope.cuh"

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

// After: dq of a tile of queries, of some heads in turn, which have the same angles. A part is 64 rows of 64 columns, a warp's 16 rows of it
// a tile. A thread has columns and their partners: half of two parts that lie side by side where kD is 128, all of one where it is 64.
constexpr int kRoundHeads = 4;
template <int kD, int kM>
__global__ void __launch_bounds__(256) Round(const BackwardArgs a, __nv_bfloat16* dq, int64_t row) {
  constexpr bool kWide = kD == 128;
  constexpr int kPitch = 64 + 8, kPart = 64 * 64;
  static_assert(kM * kD == 2 * kPart);
  __shared__ alignas(16) uint16_t tiles[2][4][16 * kPitch];  // by part and warp
  const int m = static_cast<int>(blockIdx.x), h0 = static_cast<int>(blockIdx.y) * kRoundHeads,
            b = static_cast<int>(blockIdx.z);
  const int group = static_cast<int>(threadIdx.x) / 128, own = static_cast<int>(threadIdx.x) % 128, warp = own / 32,
            lane = own % 32;
  const int q0 = m * kM + (kWide ? 0 : group * 64) + warp * 16, first = kWide ? group * 4 : 0;
  float4 angles[2][4];
  if (a.angles != nullptr) {
    const float4* const of_row = AnglesOf<kD>(a, b, min(q0, a.s - 16)) + lane;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      angles[0][i] = of_row[(first + i) * 64];
      angles[1][i] = of_row[(first + i) * 64 + 32];
    }
  }
  for (int h = h0; h < min(h0 + kRoundHeads, a.hq); ++h) {
    const float* const from = a.dq + (int64_t{b} * a.hq + h) * a.padded * kD + int64_t{m} * (kM * kD) +
                              (kWide ? 0 : group * kPart) + first * 512 + own * 4;
    constexpr int kPartner = kWide ? kPart : 4 * 512;
    float4 x[4], y[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = *reinterpret_cast<const float4*>(from + i * 512);
      y[i] = *reinterpret_cast<const float4*>(from + i * 512 + kPartner);
    }
    if (h > h0) __syncthreads();  // the tiles of the head before are read
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (a.angles != nullptr) {
        TurnTwo(x[i].x, x[i].y, y[i].x, y[i].y, angles[0][i]);
        TurnTwo(x[i].z, x[i].w, y[i].z, y[i].w, angles[1][i]);
      }
      const int at = lane / 4 * kPitch + 8 * (first + i) + lane % 4 * 2;
      uint16_t *const to = tiles[kWide ? 0 : group][warp] + at, *const partner = kWide ? tiles[1][warp] + at : to + 32;
      *reinterpret_cast<uint32_t*>(to) = Pack(x[i].x * a.scale, x[i].y * a.scale);
      *reinterpret_cast<uint32_t*>(to + 8 * kPitch) = Pack(x[i].z * a.scale, x[i].w * a.scale);
      *reinterpret_cast<uint32_t*>(partner) = Pack(y[i].x * a.scale, y[i].y * a.scale);
      *reinterpret_cast<uint32_t*>(partner + 8 * kPitch) = Pack(y[i].z * a.scale, y[i].w * a.scale);
    }
    __syncthreads();
    const int column = (kWide ? group * 64 : 0) + lane % 8 * 8;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = i * 4 + lane / 8;
      if (q0 + r < a.s) {
        *reinterpret_cast<uint4*>(dq + (int64_t{b} * a.s + q0 + r) * row + h * kD + column) =
            *reinterpret_cast<const uint4*>(tiles[group][warp] + r * kPitch + lane % 8 * 8);
      }
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
    const dim3 blocks(Blocks((c.s + rows - 1) / rows), Blocks((c.hq + kRoundHeads - 1) / kRoundHeads), Blocks(c.b));
    kernel<<<blocks, 256, 0, stream>>>(a, static_cast<__nv_bfloat16*>(c.dq), c.q_row);
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
