// Backward attention on Hopper, dq by queries: a block owns 128 queries, 64 each of two warpgroups, and walks the keys that they see; a third
// warpgroup only fetches. Blocks stay and take tile after tile. While ds k of a tile of keys and the scores of the next run, so does
// the arithmetic between them.
#include <algorithm>

#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/attention_sm90_rope.cuh"

namespace strata {
namespace sm90 {
namespace {

constexpr int kQueries = 128, kKeys = 128, kConsumers = 2, kThreads = 128 * (kConsumers + 1);

template <int kHeadDim>
struct QueryShape {
  static constexpr int kD = kHeadDim, kBoxes = kD / kBoxColumns, kKStages = 3, kVStages = 2;
  static constexpr bool kTogether = kD == 64;  // both scores are issued together: registers allow it
  struct Shared {
    alignas(1024) uint16_t q[kQueries * kD];
    alignas(1024) uint16_t d_o[kQueries * kD];
    alignas(1024) uint16_t k[kKStages][kKeys * kD];
    alignas(1024) uint16_t v[kVStages][kKeys * kD];
    uint64_t q_full, q_empty, k_full[kKStages], k_empty[kKStages], v_full[kVStages], v_empty[kVStages];
    int tile;  // guarded by q_full and q_empty
  };
};

struct Tile {
  int b, h, q0;  // first query
};
__device__ __forceinline__ Tile TileAt(const BackwardArgs& a, int number) {  // late queries see most keys
  const TileOrder::Place place = a.order.At(number);
  return {place.head / a.hq, place.head % a.hq, (a.order.tiles - 1 - place.tile) * kQueries};
}
__device__ __forceinline__ int KeyTiles(const BackwardArgs& a, int q0) {
  return ((a.causal ? min(a.t, q0 + kQueries) : a.t) + kKeys - 1) / kKeys;
}

struct Maps {
  CUtensorMap q, k, v, d_o;
};

template <typename Z>
__device__ __forceinline__ void Fetch(const BackwardArgs& a, typename Z::Shared& sh, const Maps& maps) {
  constexpr int kBytes = 128 * Z::kD * 2;
  const int total = a.order.tiles * a.order.heads;
  Ring<1> qs;
  Ring<Z::kKStages> ks;
  Ring<Z::kVStages> vs;
  for (int number = static_cast<int>(blockIdx.x);;) {
    if (number >= total) {
      Wait(&sh.q_empty, qs.parity ^ 1);
      sh.tile = -1;
      Arrive(&sh.q_full);
      return;
    }
    const Tile tile = TileAt(a, number);
    const int next = static_cast<int>(gridDim.x) + atomicAdd(a.counter, 1), kv = tile.h / a.group;
    const int last = KeyTiles(a, tile.q0) - 1;
    for (int n = last; n >= 0; --n) {
      Wait(&sh.k_empty[ks.slot], ks.parity ^ 1);
      ArriveExpecting(&sh.k_full[ks.slot], kBytes);
      LoadBoxes<128, Z::kBoxes>(sh.k[ks.slot], maps.k, &sh.k_full[ks.slot], kv, n * kKeys, tile.b);
      ks.Next();
      if (n == last) {
        Wait(&sh.q_empty, qs.parity ^ 1);
        sh.tile = number;
        ArriveExpecting(&sh.q_full, 2 * kBytes);
        LoadBoxes<128, Z::kBoxes>(sh.q, maps.q, &sh.q_full, tile.h, tile.q0, tile.b);
        LoadBoxes<128, Z::kBoxes>(sh.d_o, maps.d_o, &sh.q_full, tile.h, tile.q0, tile.b);
        qs.Next();
      }
      Wait(&sh.v_empty[vs.slot], vs.parity ^ 1);
      ArriveExpecting(&sh.v_full[vs.slot], kBytes);
      LoadBoxes<128, Z::kBoxes>(sh.v[vs.slot], maps.v, &sh.v_full[vs.slot], kv, n * kKeys, tile.b);
      vs.Next();
    }
    number = next;
  }
}

// Of the four lanes of a quad: x[i] of lane l becomes x[l] of lane i.
__device__ __forceinline__ void TransposeQuad(uint32_t (&x)[4]) {
#pragma unroll
  for (int s = 1; s < 4; s *= 2) {
    const bool upper = (threadIdx.x & s) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & s) != 0) continue;
      const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? x[i] : x[i | s], s);
      (upper ? x[i] : x[i | s]) = got;
    }
  }
}

template <typename Z>
struct QueryConsumer {
  const BackwardArgs& a;
  typename Z::Shared& sh;
  const int group;  // of the consumers
  Ring<1> qs;
  Ring<Z::kKStages> ks;  // of the next scores
  Ring<Z::kVStages> vs;
  float dq[Z::kD / 2], s[kKeys / 2], dp[kKeys / 2], lse2[2], delta[2];
  uint32_t ds[kKeys / 4];
  static constexpr int kBox = 128 * kBoxRowBytes;

  __device__ __forceinline__ static void Release(uint64_t& bar) {
    if (threadIdx.x % 32 == 0) Arrive(&bar);
  }
  __device__ __forceinline__ int RowOf(const Tile& tile) {
    const int own = static_cast<int>(threadIdx.x) % 128;
    return tile.q0 + 64 * group + own / 32 * 16 + own % 32 / 4;
  }

  // to = own rows of `queries` times those of `keys`. Issues.
  __device__ __forceinline__ void Scores(float (&to)[kKeys / 2], const uint16_t* queries, const uint16_t* keys) {
    IssueScores<Z::kD>(to, queries + group * 64 * kBoxColumns, kBox, keys, kBox);
  }
  __device__ __forceinline__ void QueryGradient(const uint16_t* keys, int accumulate) {
    const uint64_t y = Descriptor(Shared(keys), kBox);
    FenceRegisters(dq), FenceRegisters(ds);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      WgmmaRegisters<Major::kMN>(dq, ds + 4 * i, y + StepK<Major::kMN>(i, 0), i > 0 ? 1 : accumulate);
    }
    WgmmaCommit();
  }

  // s := p of the keys from k0.
  template <bool kMasked>
  __device__ __forceinline__ void Probabilities(int row, int k0) {
    const float c = a.scale * kLog2E;
    const int column = k0 + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int end = (a.causal ? min(a.t, row + 8 * r + 1) : a.t) - column;  // of what the row sees
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[4 * j + 2 * r + e];
          x = kMasked && 8 * j + e >= end ? 0.0f : Exp2(x * c - lse2[r]);
        }
      }
    }
  }
  __device__ __forceinline__ void ScoreGradient() {  // dp := ds
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) dp[i] = s[i] * (dp[i] - delta[i / 2 % 2]);
  }
  __device__ __forceinline__ void Round() {
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) ds[i] = Pack(dp[2 * i], dp[2 * i + 1]);
  }

  // dq with the tile of keys before, and ds of the tile from k0.
  template <bool kMasked>
  __device__ __forceinline__ void Step(int row, int k0, int before, int accumulate) {
    const int k_slot = ks.slot, v_slot = vs.slot;
    Wait(&sh.k_full[k_slot], ks.parity);
    Wait(&sh.v_full[v_slot], vs.parity);
    ks.Next(), vs.Next();
    Scores(s, sh.q, sh.k[k_slot]);
    if constexpr (Z::kTogether) Scores(dp, sh.d_o, sh.v[v_slot]);
    QueryGradient(sh.k[before], accumulate);
    WgmmaWait<Z::kTogether ? 2 : 1>();
    FenceRegisters(s);
    Probabilities<kMasked>(row, k0);
    if constexpr (!Z::kTogether) {
      WgmmaWait<0>();
      FenceRegisters(dq), FenceRegisters(ds);
      Release(sh.k_empty[before]);
      Scores(dp, sh.d_o, sh.v[v_slot]);
    }
    WgmmaWait<Z::kTogether ? 1 : 0>();
    FenceRegisters(dp);
    Release(sh.v_empty[v_slot]);
    ScoreGradient();
    if constexpr (Z::kTogether) {
      WgmmaWait<0>();
      FenceRegisters(dq), FenceRegisters(ds), FenceRegisters(dp);
      Release(sh.k_empty[before]);
    }
    Round();
  }

  __device__ __forceinline__ void Compute(const Tile& tile) {
    const int row = RowOf(tile), row0 = tile.q0 + 64 * group;
    const int64_t at = (int64_t{tile.b} * a.hq + tile.h) * a.padded + row;
    int n = KeyTiles(a, tile.q0) - 1, before = ks.slot;
    const int whole = (a.causal ? min(a.t, row0 + 1) : a.t) / kKeys;  // tiles before need no mask
#pragma unroll
    for (int r = 0; r < 2; ++r) lse2[r] = a.lse2[at + 8 * r], delta[r] = a.delta[at + 8 * r];
    Wait(&sh.k_full[ks.slot], ks.parity);
    Scores(s, sh.q, sh.k[ks.slot]);
    Wait(&sh.v_full[vs.slot], vs.parity);
    Scores(dp, sh.d_o, sh.v[vs.slot]);
    WgmmaWait<1>();
    FenceRegisters(s);
    Probabilities<true>(row, n * kKeys);
    WgmmaWait<0>();
    FenceRegisters(dp);
    Release(sh.v_empty[vs.slot]);
    ks.Next(), vs.Next();
    ScoreGradient();
    Round();
    int accumulate = 0;
    for (--n; n >= whole; --n) {
      const int slot = ks.slot;
      Step<true>(row, n * kKeys, before, accumulate);
      before = slot, accumulate = 1;
    }
    for (; n >= 0; --n) {
      const int slot = ks.slot;
      Step<false>(row, n * kKeys, before, accumulate);
      before = slot, accumulate = 1;
    }
    Release(sh.q_empty);
    qs.Next();
    QueryGradient(sh.k[before], accumulate);
    WgmmaWait<0>();
    FenceRegisters(dq);
    Release(sh.k_empty[before]);
  }

  // A quad has 2 rows; a lane stores 8 columns of every 32.
  __device__ __forceinline__ void Store(const Tile& tile, __nv_bfloat16* to, int64_t stride) {
    const int row = RowOf(tile), lane = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      __nv_bfloat16* const at =
          to + (int64_t{tile.b} * a.s + row + 8 * r) * stride + int64_t{tile.h} * Z::kD + lane * 8;
#pragma unroll
      for (int j = 0; j < Z::kD / 8; j += 4) {
        uint32_t x[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          x[i] = Pack(dq[4 * (j + i) + 2 * r] * a.scale, dq[4 * (j + i) + 2 * r + 1] * a.scale);
        }
        TransposeQuad(x);
        if (row + 8 * r < a.s) *reinterpret_cast<uint4*>(at + 8 * j) = make_uint4(x[0], x[1], x[2], x[3]);
      }
    }
  }

  __device__ __forceinline__ void Run(__nv_bfloat16* to, int64_t stride) {
    for (;;) {
      Wait(&sh.q_full, qs.parity);
      const int number = sh.tile;
      if (number < 0) return;
      const Tile tile = TileAt(a, number);
      Compute(tile);
      if (a.angles != nullptr) {
        const float4* const angles = AnglesOf<Z::kD>(a, tile.b, min(RowOf(tile), a.s - 16)) + threadIdx.x % 32;
        TurnRows<Z::kD>(dq, [&](int j, int r) { return angles[j * 64 + r * 32]; });
      }
      Store(tile, to, stride);
    }
  }
};

template <typename Z>
__global__ void __launch_bounds__(kThreads, 1)
    QueryGradient(const BackwardArgs a, const __grid_constant__ Maps maps, __nv_bfloat16* dq, int64_t stride) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // a build for several architectures compiles this for all
  extern __shared__ uint8_t raw[];
  auto& sh = *reinterpret_cast<typename Z::Shared*>(raw + (1024 - Shared(raw) % 1024) % 1024);
  if (threadIdx.x == 0) {
    BarrierInit(&sh.q_full, 1), BarrierInit(&sh.q_empty, 4 * kConsumers);
    for (int i = 0; i < Z::kKStages; ++i) BarrierInit(&sh.k_full[i], 1), BarrierInit(&sh.k_empty[i], 4 * kConsumers);
    for (int i = 0; i < Z::kVStages; ++i) BarrierInit(&sh.v_full[i], 1), BarrierInit(&sh.v_empty[i], 4 * kConsumers);
    FenceBarrierInit();
  }
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 0) {
    GiveRegisters<24>();
    if (threadIdx.x == 0) Fetch<Z>(a, sh, maps);
  } else {
    TakeRegisters<240>();
    QueryConsumer<Z>{a, sh, group - 1}.Run(dq, stride);
  }
#endif
}

template <typename Z>
absl::Status Launch(const AttentionCall& c, const BackwardArgs& a, cudaStream_t stream) {
  Maps maps;
  ASSIGN_OR_RETURN(maps.q, HeadsMap(c.q, c.b, c.s, c.hq, c.d, c.q_row, kQueries));
  ASSIGN_OR_RETURN(maps.k, HeadsMap(c.k, c.b, c.t, c.hk, c.d, c.kv_row, kKeys));
  ASSIGN_OR_RETURN(maps.v, HeadsMap(c.v, c.b, c.t, c.hk, c.d, c.kv_row, kKeys));
  ASSIGN_OR_RETURN(maps.d_o, HeadsMap(c.d_o, c.b, c.s, c.hq, c.d, c.hq * c.d, kQueries));
  ASSIGN_OR_RETURN(const int processors, Processors());
  constexpr int kBytes = sizeof(typename Z::Shared) + 1024;
  RETURN_IF_ERROR(CudaStatus(
      cudaFuncSetAttribute(QueryGradient<Z>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "attention"));
  QueryGradient<Z><<<std::min(a.order.tiles * a.order.heads, processors), kThreads, kBytes, stream>>>(
      a, maps, static_cast<__nv_bfloat16*>(c.dq), c.q_row);
  return Launched("attention on wgmma: dq");
}

}  // namespace

absl::Status LaunchQueryGradient(const AttentionCall& c, BackwardArgs args, cudaStream_t stream) {
  args.order = OrderOf((c.s + kQueries - 1) / kQueries, c.b * c.hq, c.group, c.t * c.d * 4, 8 << 20);
  if (c.d == 64) return Launch<QueryShape<64>>(c, args, stream);
  return Launch<QueryShape<128>>(c, args, stream);
}

}  // namespace sm90
}  // namespace strata
