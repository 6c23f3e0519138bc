// Plain attention, backward: p = exp(s - lse);  ds = p (do v^T - rowsum(do o)) / sqrt(d);  dv = p^T do;  dk = ds^T q;
// dq = ds k. One kernel whose blocks own keys for dk and dv, one whose blocks own queries for dq: nothing is added up between
// blocks, so the results are the same every time.
#include "core/kernels/attention_mma.cuh"
#include "core/kernels/attention_tiles.cuh"

namespace strata {
namespace attention {
namespace {

// row_sum[row] = do[row] . o[row]; a warp a row.
template <typename T>
__global__ void __launch_bounds__(kThreads) RowSum(const AttentionCall c) {
  const int64_t row = (blockIdx.x * int64_t{kThreads} + threadIdx.x) / 32;
  if (row >= c.b * c.s * c.hq) return;
  const T* a = static_cast<const T*>(c.d_o) + row * c.d;
  const T* b = static_cast<const T*>(c.o) + row * c.d;
  float sum = 0;
  for (int i = threadIdx.x % 32; i < c.d; i += 32) sum += ToFloat(a[i]) * ToFloat(b[i]);
  for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (threadIdx.x % 32 == 0) c.row_sum[row] = sum;
}

template <typename T, int kD, Owns kOwns>
__global__ void __launch_bounds__(kThreads) Backward(const AttentionCall c, const float scale, const int64_t tiles) {
  constexpr int kRows = RowsOf(kD), kOwn = OwnOf(kD);
  constexpr bool kKeys = kOwns == Owns::kKeys;
  extern __shared__ float4 shared[];
  float* const own_score = reinterpret_cast<float*>(shared);       // k or q: what the scores are made of
  float* const own_value = own_score + kOwn * StrideOf(kD);        // v or do
  float* const other_score = own_value + kOwn * StrideOf(kD);      // q or k
  float* const other_value = other_score + kOther * StrideOf(kD);  // do or v
  float* const ds_tile = other_value + kOther * StrideOf(kD);
  float* const p_tile = ds_tile + kOwn * kWeightStride;  // for dv
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16, d = static_cast<int>(c.d);

  const auto [own0, own_rows, other_rows, b, kv, first_h, end_h, o_row, k, v, q, d_o] =
      BackwardBlockOf<T, kOwns>(c, tiles, kOwn);
  if (kKeys) {
    LoadTile<kD, kOwn>(k + own0 * c.kv_row, c.kv_row, own_rows - own0, d, own_score);
    LoadTile<kD, kOwn>(v + own0 * c.kv_row, c.kv_row, own_rows - own0, d, own_value);
  } else {
    LoadTile<kD, kOwn>(q + own0 * c.q_row + first_h * d, c.q_row, own_rows - own0, d, own_score);
    LoadTile<kD, kOwn>(d_o + own0 * o_row + first_h * d, o_row, own_rows - own0, d, own_value);
  }

  float4 from_ds[kRows][kD / 64], from_p[kRows][kD / 64];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int x = 0; x < kD / 64; ++x) from_ds[r][x] = from_p[r][x] = make_float4(0, 0, 0, 0);
  }
  const float* const lse = c.lse + b * c.s * c.hq;
  const float* const row_sum = c.row_sum + b * c.s * c.hq;

  for (int64_t h = first_h; h < end_h; ++h) {
    for (int64_t other0 = 0; other0 < other_rows; other0 += kOther) {
      bool sees[kRows][2], any = false;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int64_t mine = own0 + ty * kRows + r, theirs = other0 + tx + 16 * i;
          sees[r][i] =
              kKeys ? Sees(RangeOf(c, b, theirs), KeyOf(c, mine)) : Sees(RangeOf(c, b, mine), KeyOf(c, theirs));
          any |= sees[r][i];
        }
      }
      if (!__syncthreads_or(any)) continue;  // and: everybody is done with the tile before
      const int64_t n = other_rows - other0;
      if (kKeys) {
        LoadTile<kD, kOther>(q + other0 * c.q_row + h * d, c.q_row, n, d, other_score);
        LoadTile<kD, kOther>(d_o + other0 * o_row + h * d, o_row, n, d, other_value);
      } else {
        LoadTile<kD, kOther>(k + other0 * c.kv_row, c.kv_row, n, d, other_score);
        LoadTile<kD, kOther>(v + other0 * c.kv_row, c.kv_row, n, d, other_value);
      }
      __syncthreads();
      float s[kRows][2], dp[kRows][2];
      Scores<kD>(own_score, other_score, d, s);
      Scores<kD>(own_value, other_value, d, dp);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float p = 0, ds = 0;
          if (sees[r][i]) {
            const int64_t query = kKeys ? other0 + tx + 16 * i : own0 + ty * kRows + r;
            p = expf(s[r][i] * scale - lse[query * c.hq + h]);
            ds = p * (dp[r][i] - row_sum[query * c.hq + h]) * scale;
          }
          const int at = (ty * kRows + r) * kWeightStride + tx + 16 * i;
          ds_tile[at] = ds;
          if (kKeys) p_tile[at] = p;
        }
      }
      __syncwarp();  // the 16 threads of a row of weights are of one warp
      AddProducts<kD>(ds_tile, other_score, from_ds);
      if (kKeys) AddProducts<kD>(p_tile, other_value, from_p);
    }
  }

  const int64_t n = own_rows - own0;
  if (kKeys) {
    const int64_t at = (b * c.t + own0) * c.kv_row + kv * d;
    StoreRows<kD>(from_ds, static_cast<T*>(c.dk) + at, c.kv_row, n, d);
    StoreRows<kD>(from_p, static_cast<T*>(c.dv) + at, c.kv_row, n, d);
  } else {
    StoreRows<kD>(from_ds, static_cast<T*>(c.dq) + (b * c.s + own0) * c.q_row + first_h * d, c.q_row, n, d);
  }
}

template <typename T, int kD>
absl::Status RunBackward(const AttentionCall& c, cudaStream_t stream) {
  constexpr int kOwn = OwnOf(kD);
  const int64_t rows = c.b * c.s * c.hq;
  RowSum<T><<<static_cast<unsigned>(Ceil(rows, kThreads / 32)), kThreads, 0, stream>>>(c);
  RETURN_IF_ERROR(Launched("attention: row sums"));
  if constexpr (std::is_same_v<T, CudaBF16>) {
    if (SuitsMma(c)) return MmaBackward(c, stream);
  }
  RETURN_IF_ERROR(Launch(Backward<T, kD, Owns::kKeys>, c, c.b * c.hk, c.t, kOwn, 2 * kOwn + 2 * kOther, 2, kD, stream));
  return Launch(Backward<T, kD, Owns::kQueries>, c, c.b * c.hq, c.s, kOwn, 2 * kOwn + 2 * kOther, 1, kD, stream);
}

}  // namespace
}  // namespace attention

absl::Status PlainAttentionBackward(const AttentionCall& c, cudaStream_t stream) {
  return attention::ByType(c, [&]<typename T, int kD>() { return attention::RunBackward<T, kD>(c, stream); });
}

}  // namespace strata
