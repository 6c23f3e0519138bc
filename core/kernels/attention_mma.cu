// Plain attention on tensor cores, forward: as attention.cu, with products of bf16.
#include "core/kernels/attention_mma.cuh"

namespace strata::attention {
namespace {

constexpr int kKeys = 64, kTiles = kKeys / 8;  // of the other side

template <int kD>
__global__ void __launch_bounds__(kMmaThreads) Forward(const AttentionCall c, const float scale, const int64_t tiles) {
  extern __shared__ uint4 shared[];
  __shared__ int positions[2][kKeys];
  CudaBF16* const queries = reinterpret_cast<CudaBF16*>(shared);
  CudaBF16* const others = queries + kMmaOwn * PitchOf(kD);  // two times keys | values
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, d = static_cast<int>(c.d);

  const int64_t heads = c.b * c.hq, head = blockIdx.x % heads;
  const int64_t q0 = (tiles - 1 - blockIdx.x / heads) * kMmaOwn;  // late queries see most keys
  const int64_t b = head / c.hq, h = head % c.hq, kv = (c.first_q + h) / c.group - c.first_k;
  const CudaBF16* k = static_cast<const CudaBF16*>(c.k) + b * c.t * c.kv_row + kv * d;
  const CudaBF16* v = static_cast<const CudaBF16*>(c.v) + b * c.t * c.kv_row + kv * d;
  CopyTile<kD, kMmaOwn>(static_cast<const CudaBF16*>(c.q) + (b * c.s + q0) * c.q_row + h * d, c.q_row, c.s - q0, d,
                        queries);

  Range range[2];
  float max[2] = {-INFINITY, -INFINITY}, total[2] = {}, sum[kD / 8][4] = {};
#pragma unroll
  for (int r = 0; r < 2; ++r) range[r] = RangeOf(c, b, q0 + warp * 16 + lane / 4 + 8 * r);
  const Range seen = Bounds({min(range[0].first, range[1].first), ::max(range[0].last, range[1].last)});

  const Span span = KeysOf(c, seen);
  // The first tile from k0 on in which a key is seen; the span's end or more: none. Its keys, and what they hold, go to buffer `to`.
  const auto fetch = [&](int64_t k0, int to) {
    for (; k0 < span.end; k0 += kKeys) {
      Key key = {0, false};
      if (threadIdx.x < kKeys) key = KeyOf(c, k0 + threadIdx.x);
      if (!__syncthreads_or(Sees(seen, key))) continue;
      if (threadIdx.x < kKeys) positions[to][threadIdx.x] = key.position;
      CudaBF16* const keys = others + to * 2 * kKeys * PitchOf(kD);
      CopyTile<kD, kKeys>(k + k0 * c.kv_row, c.kv_row, c.t - k0, d, keys);
      CopyTile<kD, kKeys>(v + k0 * c.kv_row, c.kv_row, c.t - k0, d, keys + kKeys * PitchOf(kD));
      break;
    }
    return k0;
  };
  int buffer = 0;
  for (int64_t k0 = fetch(span.begin / kKeys * kKeys, 0), next = 0; k0 < span.end; k0 = next, buffer ^= 1) {
    WaitForCopies();
    __syncthreads();  // the tile is there, and everybody is done with the one before
    next = fetch(k0 + kKeys, buffer ^ 1);
    const CudaBF16* const keys = others + buffer * 2 * kKeys * PitchOf(kD);
    const CudaBF16* const values = keys + kKeys * PitchOf(kD);
    float s[kTiles][4];
    WarpScores<kD>(queries + warp * 16 * PitchOf(kD), keys, s);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = -INFINITY;
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int column = 8 * j + lane % 4 * 2 + e;
          float& x = s[j][2 * r + e];
          x = Sees(range[r], {positions[buffer][column], k0 + column < c.t}) ? x * scale : -INFINITY;
          top = fmaxf(top, x);
        }
      }
      for (int i = 1; i < 4; i *= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, i));
      top = fmaxf(max[r], top);
      const float shift = top == -INFINITY ? 0.0f : top, decay = __expf(max[r] - shift);
      max[r] = top;
      total[r] *= decay;
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[j][2 * r + e];
          x = __expf(x - shift);
          total[r] += x;
        }
      }
#pragma unroll
      for (int i = 0; i < kD / 8; ++i) {
        sum[i][2 * r] *= decay;
        sum[i][2 * r + 1] *= decay;
      }
    }
    WarpProducts<kD>(s, values, sum);
  }

  WaitForCopies();  // of the queries, where no key is seen
  float over[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    for (int i = 1; i < 4; i *= 2) total[r] += __shfl_xor_sync(0xffffffffu, total[r], i);
    over[r] = total[r] == 0 ? 0.0f : 1 / total[r];
    const int64_t i = q0 + warp * 16 + lane / 4 + 8 * r;
    if (lane % 4 == 0 && i < c.s) c.lse[(b * c.s + i) * c.hq + h] = max[r] + logf(total[r]);
  }
  const int64_t first = q0 + warp * 16;
  StoreWarpRows<kD>(sum, over, static_cast<CudaBF16*>(c.o) + (b * c.s + first) * c.hq * d + h * d, c.hq * d,
                    c.s - first, d);
}

}  // namespace

absl::Status MmaForward(const AttentionCall& c, cudaStream_t stream) {
  constexpr int kRows = kMmaOwn + 4 * kKeys;
  if (c.d <= 64) return LaunchMma(Forward<64>, c, c.b * c.hq, c.s, kRows, 64, stream);
  return LaunchMma(Forward<128>, c, c.b * c.hq, c.s, kRows, 128, stream);
}

}  // namespace strata::attention
