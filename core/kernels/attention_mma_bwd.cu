// Plain attention on tensor cores, backward: as attention_bwd.cu, with products of bf16. Nothing is added up between blocks, so
// the results are the same every time.
#include "core/kernels/attention_mma.cuh"

namespace strata::attention {
namespace {

constexpr int kOthers = 32, kTiles = kOthers / 8;

// What a block knows of a query.
struct Query {
  Range range;
  float lse, row_sum;
};
__device__ __forceinline__ Query QueryOf(const AttentionCall& c, int64_t b, int64_t h, int64_t i) {
  Query q = {RangeOf(c, b, i), 0, 0};
  if (i < c.s) {
    const int64_t at = (b * c.s + i) * c.hq + h;
    q.lse = c.lse[at], q.row_sum = c.row_sum[at];
  }
  return q;
}

template <int kD, Owns kOwns>
__global__ void __launch_bounds__(kMmaThreads) Backward(const AttentionCall c, const float scale, const int64_t tiles) {
  constexpr bool kKeys = kOwns == Owns::kKeys;
  extern __shared__ uint4 shared[];
  __shared__ Query other_queries[2][kOthers];
  __shared__ int other_positions[2][kOthers];
  CudaBF16* const own_score = reinterpret_cast<CudaBF16*>(shared);  // k or q: what the scores are made of
  CudaBF16* const own_value = own_score + kMmaOwn * PitchOf(kD);    // v or do
  CudaBF16* const others = own_value + kMmaOwn * PitchOf(kD);       // two times q | do, or k | v
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, d = static_cast<int>(c.d);

  const auto [own0, own_rows, other_rows, b, kv, first_h, end_h, o_row, k, v, q, d_o] =
      BackwardBlockOf<CudaBF16, kOwns>(c, tiles, kMmaOwn);
  if (kKeys) {
    CopyTile<kD, kMmaOwn>(k + own0 * c.kv_row, c.kv_row, own_rows - own0, d, own_score);
    CopyTile<kD, kMmaOwn>(v + own0 * c.kv_row, c.kv_row, own_rows - own0, d, own_value);
  } else {
    CopyTile<kD, kMmaOwn>(q + own0 * c.q_row + first_h * d, c.q_row, own_rows - own0, d, own_score);
    CopyTile<kD, kMmaOwn>(d_o + own0 * o_row + first_h * d, o_row, own_rows - own0, d, own_value);
  }

  Key own_keys[2] = {};
  Query own_queries[2] = {};
  Range mine = {INT_MAX, INT_MIN};  // positions of the thread's keys, or those that its queries see
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t i = own0 + warp * 16 + lane / 4 + 8 * r;
    if (kKeys) {
      own_keys[r] = KeyOf(c, i);
      if (own_keys[r].exists) {
        mine = {min(mine.first, own_keys[r].position), max(mine.last, own_keys[r].position)};
      }
    } else {
      own_queries[r] = QueryOf(c, b, first_h, i);
      mine = {min(mine.first, own_queries[r].range.first), max(mine.last, own_queries[r].range.last)};
    }
  }
  const Range own = Bounds(mine);

  // Tiles of the other side that may be seen are numbered through the heads.
  const Span span = kKeys ? QueriesOf(c, b, own) : KeysOf(c, own);
  const int64_t first_tile = span.begin / kOthers;
  const int64_t tiles_a_head = max((span.end + kOthers - 1) / kOthers - first_tile, int64_t{0});
  const int64_t end = (end_h - first_h) * tiles_a_head;
  // The first tile from `tile` on of which something is seen, or `end`; its rows go to buffer `to`.
  const auto fetch = [&](int64_t tile, int to) {
    for (; tile < end; ++tile) {
      const int64_t h = first_h + tile / tiles_a_head, other0 = (first_tile + tile % tiles_a_head) * kOthers;
      const int64_t theirs = other0 + threadIdx.x, n = other_rows - other0;
      Key key = {0, false};
      bool any = false;
      if (threadIdx.x < kOthers) {
        if (kKeys) {
          const Range range = RangeOf(c, b, theirs);
          any = range.first <= own.last && own.first <= range.last;
        } else {
          key = KeyOf(c, theirs);
          any = Sees(own, key);
        }
      }
      if (!__syncthreads_or(any)) continue;
      if (threadIdx.x < kOthers) {
        if (kKeys) {
          other_queries[to][threadIdx.x] = QueryOf(c, b, h, theirs);
        } else {
          other_positions[to][threadIdx.x] = key.position;
        }
      }
      CudaBF16* const score = others + to * 2 * kOthers * PitchOf(kD);
      CudaBF16* const value = score + kOthers * PitchOf(kD);
      if (kKeys) {
        CopyTile<kD, kOthers>(q + other0 * c.q_row + h * d, c.q_row, n, d, score);
        CopyTile<kD, kOthers>(d_o + other0 * o_row + h * d, o_row, n, d, value);
      } else {
        CopyTile<kD, kOthers>(k + other0 * c.kv_row, c.kv_row, n, d, score);
        CopyTile<kD, kOthers>(v + other0 * c.kv_row, c.kv_row, n, d, value);
      }
      break;
    }
    return tile;
  };

  float from_ds[kD / 8][4] = {}, from_p[kD / 8][4] = {};
  int buffer = 0;
  for (int64_t tile = fetch(0, 0), next = 0; tile < end; tile = next, buffer ^= 1) {
    WaitForCopies();
    __syncthreads();  // the tile is there, and everybody is done with the one before
    next = fetch(tile + 1, buffer ^ 1);
    const int64_t other0 = (first_tile + tile % tiles_a_head) * kOthers;
    const CudaBF16* const other_score = others + buffer * 2 * kOthers * PitchOf(kD);
    const CudaBF16* const other_value = other_score + kOthers * PitchOf(kD);
    float p[kTiles][4], ds[kTiles][4];
    WarpScores<kD>(own_score + warp * 16 * PitchOf(kD), other_score, p);
    WarpScores<kD>(own_value + warp * 16 * PitchOf(kD), other_value, ds);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 8 * j + lane % 4 * 2 + i % 2;
        const Query query = kKeys ? other_queries[buffer][column] : own_queries[i / 2];
        const Key seen = kKeys ? own_keys[i / 2] : Key{other_positions[buffer][column], other0 + column < c.t};
        const bool sees = Sees(query.range, seen);
        p[j][i] = sees ? __expf(p[j][i] * scale - query.lse) : 0.0f;
        ds[j][i] = sees ? p[j][i] * (ds[j][i] - query.row_sum) * scale : 0.0f;
      }
    }
    WarpProducts<kD>(ds, other_score, from_ds);
    if (kKeys) WarpProducts<kD>(p, other_value, from_p);
  }

  WaitForCopies();  // of the own rows, where no tile is seen
  const float one[2] = {1, 1};
  const int64_t first = own0 + warp * 16, n = own_rows - first;
  if (kKeys) {
    const int64_t at = (b * c.t + first) * c.kv_row + kv * d;
    StoreWarpRows<kD>(from_ds, one, static_cast<CudaBF16*>(c.dk) + at, c.kv_row, n, d);
    StoreWarpRows<kD>(from_p, one, static_cast<CudaBF16*>(c.dv) + at, c.kv_row, n, d);
  } else {
    StoreWarpRows<kD>(from_ds, one, static_cast<CudaBF16*>(c.dq) + (b * c.s + first) * c.q_row + first_h * d, c.q_row,
                      n, d);
  }
}

template <int kD>
absl::Status Run(const AttentionCall& c, cudaStream_t stream) {
  constexpr int kRows = 2 * kMmaOwn + 4 * kOthers;
  RETURN_IF_ERROR(LaunchMma(Backward<kD, Owns::kKeys>, c, c.b * c.hk, c.t, kRows, kD, stream));
  return LaunchMma(Backward<kD, Owns::kQueries>, c, c.b * c.hq, c.s, kRows, kD, stream);
}

}  // namespace

absl::Status MmaBackward(const AttentionCall& c, cudaStream_t stream) {
  return c.d <= 64 ? Run<64>(c, stream) : Run<128>(c, stream);
}

}  // namespace strata::attention
