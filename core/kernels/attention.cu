// Plain attention, forward: s = q k^T / sqrt(d);  p = exp(s - max);  lse = max + log sum p;  o = p v / sum p.
// A block owns queries and walks the keys in order with a running maximum. Tiles in which no query sees a key are passed over.
#include "core/kernels/attention_mma.cuh"
#include "core/kernels/attention_tiles.cuh"

namespace strata {
namespace attention {
namespace {

template <typename T, int kD>
__global__ void __launch_bounds__(kThreads) Forward(const AttentionCall c, const float scale, const int64_t tiles) {
  constexpr int kRows = RowsOf(kD), kOwn = OwnOf(kD);
  extern __shared__ float4 shared[];
  float* const queries = reinterpret_cast<float*>(shared);
  float* const keys = queries + kOwn * StrideOf(kD);
  float* const values = keys + kOther * StrideOf(kD);
  float* const weights = values + kOther * StrideOf(kD);
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16, d = static_cast<int>(c.d);

  const int64_t heads = c.b * c.hq, head = blockIdx.x % heads;
  const int64_t q0 = (tiles - 1 - blockIdx.x / heads) * kOwn;  // late queries see most keys
  const int64_t b = head / c.hq, h = head % c.hq, kv = (c.first_q + h) / c.group - c.first_k;
  const T* k = static_cast<const T*>(c.k) + b * c.t * c.kv_row + kv * d;
  const T* v = static_cast<const T*>(c.v) + b * c.t * c.kv_row + kv * d;
  LoadTile<kD, kOwn>(static_cast<const T*>(c.q) + (b * c.s + q0) * c.q_row + h * d, c.q_row, c.s - q0, d, queries);

  Range range[kRows];
  float max[kRows], total[kRows];
  float4 sum[kRows][kD / 64];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    range[r] = RangeOf(c, b, q0 + ty * kRows + r);
    max[r] = -INFINITY;
    total[r] = 0;
#pragma unroll
    for (int x = 0; x < kD / 64; ++x) sum[r][x] = make_float4(0, 0, 0, 0);
  }

  for (int64_t k0 = 0; k0 < c.t; k0 += kOther) {
    const Key key[2] = {KeyOf(c, k0 + tx), KeyOf(c, k0 + tx + 16)};
    bool any = false;
#pragma unroll
    for (int r = 0; r < kRows; ++r) any |= Sees(range[r], key[0]) || Sees(range[r], key[1]);
    if (!__syncthreads_or(any)) continue;  // and: everybody is done with the tile before
    LoadTile<kD, kOther>(k + k0 * c.kv_row, c.kv_row, c.t - k0, d, keys);
    LoadTile<kD, kOther>(v + k0 * c.kv_row, c.kv_row, c.t - k0, d, values);
    __syncthreads();
    float s[kRows][2];
    Scores<kD>(queries, keys, d, s);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < 2; ++i) s[r][i] = Sees(range[r], key[i]) ? s[r][i] * scale : -INFINITY;
      const float top = fmaxf(max[r], MaxOf16(fmaxf(s[r][0], s[r][1])));
      const float shift = top == -INFINITY ? 0.0f : top;
      const float decay = expf(max[r] - shift), p0 = expf(s[r][0] - shift), p1 = expf(s[r][1] - shift);
      float* p = weights + (ty * kRows + r) * kWeightStride + tx;
      p[0] = p0;
      p[16] = p1;
      max[r] = top;
      total[r] = total[r] * decay + SumOf16(p0 + p1);
#pragma unroll
      for (int x = 0; x < kD / 64; ++x) {
        float4& y = sum[r][x];
        y = make_float4(y.x * decay, y.y * decay, y.z * decay, y.w * decay);
      }
    }
    __syncwarp();  // the 16 threads of a row of weights are of one warp
    AddProducts<kD>(weights, values, sum);
  }

#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float over = total[r] == 0 ? 0.0f : 1 / total[r];
#pragma unroll
    for (int x = 0; x < kD / 64; ++x) {
      float4& y = sum[r][x];
      y = make_float4(y.x * over, y.y * over, y.z * over, y.w * over);
    }
    const int64_t i = q0 + ty * kRows + r;
    if (tx == 0 && i < c.s) c.lse[(b * c.s + i) * c.hq + h] = max[r] + logf(total[r]);
  }
  StoreRows<kD>(sum, static_cast<T*>(c.o) + (b * c.s + q0) * c.hq * d + h * d, c.hq * d, c.s - q0, d);
}

__global__ void FindFirstKeys(const AttentionCall c, int32_t* first) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= c.b * c.s) return;
  int64_t begin = 0, end = c.t;
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (c.pos_k[middle] < c.starts[i]) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  first[i] = static_cast<int32_t>(begin);
}

__global__ void Number(const AttentionCall c, int64_t length, int32_t* positions, int32_t* starts) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x, at = i % c.s;
  if (i >= c.b * c.s) return;
  if (i < c.s) positions[i] = static_cast<int32_t>(i);
  starts[i] = static_cast<int32_t>(at - at % length);
}

template <typename T, int kD>
absl::Status RunForward(const AttentionCall& c, cudaStream_t stream) {
  constexpr int kOwn = OwnOf(kD);
  return Launch(Forward<T, kD>, c, c.b * c.hq, c.s, kOwn, kOwn + 2 * kOther, 1, kD, stream);
}

}  // namespace
}  // namespace attention

absl::Status FirstKeys(const AttentionCall& c, int32_t* first, cudaStream_t stream) {
  attention::
      FindFirstKeys<<<static_cast<unsigned>(Ceil(c.b * c.s, attention::kThreads)), attention::kThreads, 0, stream>>>(
          c, first);
  return Launched("attention: first keys");
}

absl::Status FillDocuments(const AttentionCall& c, int64_t length, cudaStream_t stream) {
  attention::Number<<<static_cast<unsigned>(Ceil(c.b * c.s, attention::kThreads)), attention::kThreads, 0, stream>>>(
      c, length, const_cast<int32_t*>(c.pos_q), const_cast<int32_t*>(c.starts));
  return Launched("attention: documents");
}

absl::Status PlainAttentionForward(const AttentionCall& c, cudaStream_t stream) {
  if (attention::SuitsMma(c)) return attention::MmaForward(c, stream);
  return attention::ByType(c, [&]<typename T, int kD>() { return attention::RunForward<T, kD>(c, stream); });
}

}  // namespace strata
