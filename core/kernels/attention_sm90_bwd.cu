// Backward attention on Hopper, by keys. A block owns 128 keys of a kv head, 64 each of two warpgroups, and walks the queries that see
// them, of every query head of its kv head; a third warpgroup only fetches. Scores are computed transposed, so that p^T leaves the
// accumulators as a register operand of the next product:
//   p^T = exp2(c k q^T - lse2);  dv += p^T do;  ds^T = p^T (v do^T - delta);  dk += ds^T q;  dq += ds k
// dk and dv stay in registers. Either ds goes through shared memory to dq's product, which is added to float32 sums in global memory in
// any order: while dq and dk of a tile of queries run, p of the next is made. Or dq is left to another kernel, and all of ds stays in
// registers. A kernel before makes lse2 and delta.
#include <algorithm>
#include <cmath>

#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/attention_sm90.h"
#include "core/kernels/attention_sm90_keys.cuh"
#include "core/kernels/attention_sm90_rope.cuh"

namespace strata {
namespace sm90 {
namespace {

constexpr int kConsumers = 2, kBackwardThreads = 128 * (kConsumers + 1);
constexpr int kRowUnit = 128;       // queries are padded to a multiple of it
constexpr int kCounterFloats = 64;  // place of the counter in the workspace

enum class Dq { kSums, kElsewhere };

template <int kHeadDim, int kQueries, Dq kDqOf>
struct BackwardShape {
  static constexpr int kD = kHeadDim, kM = kQueries, kBoxes = kD / kBoxColumns;
  static constexpr bool kSums = kDqOf == Dq::kSums;
  static_assert(!kSums || kM * kD == kConsumers * 64 * 64);  // a warpgroup has 64 x 64 of dq
  static constexpr int kQStages = 3, kDoStages = kSums ? 2 : 3;
  struct Shared {
    alignas(1024) uint16_t k[kKeys * kD];
    alignas(1024) uint16_t v[kKeys * kD];
    alignas(1024) uint16_t q[kQStages][kM * kD];
    alignas(1024) uint16_t d_o[kDoStages][kM * kD];
    alignas(1024) uint16_t ds[2][kSums ? kKeys * kM : 512];  // boxes of 64 queries: [keys, 64]
    alignas(16) float lse2[kQStages][kM];
    alignas(16) float delta[kDoStages][kM];
    uint64_t k_full, v_full, q_full[kQStages], q_empty[kQStages], do_full[kDoStages], do_empty[kDoStages], ds_full[2];
  };
};

// The block's work: queries of tiles [first, end) of heads [head, head + group) of row b.
struct Work {
  int b, kv, k0, first, end;
};
template <typename Z>
__device__ __forceinline__ Work WorkOf(const BackwardArgs& a) {
  const TileOrder::Place place = a.order.At(static_cast<int>(blockIdx.x));  // early keys are seen by most queries
  const int k0 = place.tile * kKeys;
  return {place.head / a.hk, place.head % a.hk, k0, a.causal ? k0 / Z::kM : 0, (a.s + Z::kM - 1) / Z::kM};
}

template <typename Z>
__device__ __forceinline__ void FetchBackward(const BackwardArgs& a, const Work& w, typename Z::Shared& sh,
                                              const CUtensorMap& q, const CUtensorMap& k, const CUtensorMap& v,
                                              const CUtensorMap& d_o) {
  const auto load_own = [&](uint16_t* to, const CUtensorMap& map, uint64_t& full) {
    ArriveExpecting(&full, kKeys * Z::kD * 2);
    LoadBoxes<kKeys, Z::kBoxes>(to, map, &full, w.kv, w.k0, w.b);
  };
  const auto load = [&](uint16_t* to, const CUtensorMap& map, float* to_row, const float* row, uint64_t& full, int head,
                        int m) {
    ArriveExpecting(&full, Z::kM * (Z::kD * 2 + 4));
    LoadBoxes<Z::kM, Z::kBoxes>(to, map, &full, head, m * Z::kM, w.b);
    LoadBytes(to_row, row + (int64_t{w.b} * a.hq + head) * a.padded + m * Z::kM, Z::kM * 4, &full);
  };
  load_own(sh.k, k, sh.k_full);
  FetchTiles<Z>(a, w, sh, q, d_o, load, [&] { load_own(sh.v, v, sh.v_full); });
}

template <typename Z>
struct BackwardConsumer {
  const BackwardArgs& a;
  const Work& w;
  typename Z::Shared& sh;
  const int group;  // of the consumers
  static constexpr int kQBox = Z::kM * kBoxRowBytes;

  Ring<Z::kQStages> qs;    // of the next scores
  Ring<Z::kDoStages> dos;  // of the next dp
  float dk[Z::kD / 2], dv[Z::kD / 2], s[Z::kM / 2], dp[Z::kM / 2], dq[32];
  uint32_t p[Z::kM / 4], ds[Z::kM / 4];  // ds where dq is made elsewhere

  __device__ __forceinline__ static void Release(uint64_t& bar) {
    if (threadIdx.x % 32 == 0) Arrive(&bar);
  }

  // to = own keys of `keys` times `queries`, transposed scores. Issues.
  __device__ __forceinline__ void Scores(float (&to)[Z::kM / 2], const uint16_t* keys, const uint16_t* queries) {
    IssueScores<Z::kD>(to, keys + group * 64 * kBoxColumns, kKeysBox, queries, kQBox);
  }
  // The warpgroup's part of dq: 64 columns of all queries, or all columns of 64 queries.
  __device__ __forceinline__ void QueryGradient(const uint16_t* weights) {
    const int rows = Z::kM == 64 ? 0 : group, columns = Z::kM == 64 ? group : 0;
    const uint64_t x = Descriptor(Shared(weights + rows * kKeys * kBoxColumns), 0),
                   y = Descriptor(Shared(sh.k + columns * kKeys * kBoxColumns), 0);
    Forget(dq);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      Wgmma<Major::kMN, Major::kMN>(dq, x + StepK<Major::kMN>(i, 0), y + StepK<Major::kMN>(i, 0), i > 0);
    }
    WgmmaCommit();
  }

  // s := p^T of the tile of queries from q0.
  __device__ __forceinline__ void MakeProbabilities(int q0, const float* lse2) {
    Probabilities(a, w.k0, group, q0, lse2, s);
  }

  // p, and ds where dq is made elsewhere, := p^T and ds^T, rounded.
  __device__ __forceinline__ void Round() {
#pragma unroll
    for (int i = 0; i < Z::kM / 4; ++i) {
      p[i] = Pack(s[2 * i], s[2 * i + 1]);
      if constexpr (!Z::kSums) ds[i] = Pack(dp[2 * i], dp[2 * i + 1]);
    }
  }

  __device__ __forceinline__ void AddQueryGradient(float* tile) {
    float* const to = tile + group * 64 * 64 + InWarpgroup() * 4;
#pragma unroll
    for (int i = 0; i < 8; ++i) AddToGlobal(to + i * 512, dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
  }

  // ds of the tile of queries whose dp is done, in dp and, where dq is made here, `buffer`.
  __device__ __forceinline__ void Weights(int do_slot, int buffer) {
    ScoreGradient(s, sh.delta[do_slot], dp);
    if constexpr (Z::kSums) {
      ShareRows(dp, 1, group, sh.ds[buffer]);
      __syncwarp();
      Release(sh.ds_full[buffer]);
    }
  }

  // The products with tile `it` of queries, and p and ds of the next, whose first query is `next_q0`.
  template <bool kMore>
  __device__ __forceinline__ void Step(int it, int next_q0, float* dq_tile) {
    const int q_slot = qs.slot, do_slot = dos.slot, buffer = it & 1;
    qs.Next(), dos.Next();
    if constexpr (kMore) Wait(&sh.q_full[qs.slot], qs.parity);
    IssueOfRegisters(dv, p, sh.d_o[do_slot]);
    if constexpr (kMore) Scores(s, sh.k, sh.q[qs.slot]);
    Wait(&sh.ds_full[buffer], it >> 1 & 1);
    WgmmaWait<kMore ? 1 : 0>();
    FenceRegisters(dv), FenceRegisters(p);
    Release(sh.do_empty[do_slot]);
    QueryGradient(sh.ds[buffer]);
    IssueKeyGradient<Z::kM>(dk, sh.ds[buffer], group, sh.q[q_slot]);
    if constexpr (kMore) {
      WgmmaWait<2>();
      FenceRegisters(s);
      MakeProbabilities(next_q0, sh.lse2[qs.slot]);
    }
    WgmmaWait<1>();
    FenceRegisters(dq);
    AddQueryGradient(dq_tile);
    if constexpr (kMore) {
      Wait(&sh.do_full[dos.slot], dos.parity);
      Scores(dp, sh.v, sh.d_o[dos.slot]);
    }
    WgmmaWait<0>();
    FenceRegisters(dk);
    if constexpr (kMore) {
      FenceRegisters(dp);
      Weights(dos.slot, buffer ^ 1);
    }
    Release(sh.q_empty[q_slot]);
    if constexpr (kMore) {
      FenceRegisters(s);
      Round();
    }
  }

  // The same without dq. Where registers allow it, both scores are issued together.
  template <bool kMore>
  __device__ __forceinline__ void StepWithoutDq(int next_q0) {
    constexpr bool kTogether = kMore && Z::kD == 64;
    const int q_slot = qs.slot, do_slot = dos.slot;
    qs.Next(), dos.Next();
    if constexpr (kMore) {
      Wait(&sh.q_full[qs.slot], qs.parity);
      Wait(&sh.do_full[dos.slot], dos.parity);
      Scores(s, sh.k, sh.q[qs.slot]);
    }
    if constexpr (kTogether) Scores(dp, sh.v, sh.d_o[dos.slot]);
    IssueOfRegisters(dv, p, sh.d_o[do_slot]);
    IssueOfRegisters(dk, ds, sh.q[q_slot]);
    if constexpr (kMore) {
      WgmmaWait<kTogether ? 3 : 2>();
      FenceRegisters(s);
      MakeProbabilities(next_q0, sh.lse2[qs.slot]);
    }
    if constexpr (kTogether) {
      WgmmaWait<2>();
      FenceRegisters(dp);
      ScoreGradient(s, sh.delta[dos.slot], dp);
    } else if constexpr (kMore) {
      WgmmaWait<1>();
      FenceRegisters(dv), FenceRegisters(p);
      Scores(dp, sh.v, sh.d_o[dos.slot]);
    }
    WgmmaWait<0>();
    FenceRegisters(dv), FenceRegisters(dk), FenceRegisters(p), FenceRegisters(ds);
    if constexpr (kMore) {
      FenceRegisters(s), FenceRegisters(dp);
      if constexpr (!kTogether) ScoreGradient(s, sh.delta[dos.slot], dp);
    }
    Release(sh.do_empty[do_slot]);
    Release(sh.q_empty[q_slot]);
    if constexpr (kMore) Round();
  }

  __device__ __forceinline__ void Walk() {
    constexpr int64_t kTile = Z::kM * Z::kD;
    const int total = (w.end - w.first) * a.group;
    const int64_t head_size = int64_t{a.padded} * Z::kD;
    float* dq_head = a.dq + (int64_t{w.b} * a.hq + w.kv * a.group) * head_size;
#pragma unroll
    for (int i = 0; i < Z::kD / 2; ++i) dk[i] = dv[i] = 0;

    Wait(&sh.k_full, 0);
    Wait(&sh.q_full[0], 0);
    Scores(s, sh.k, sh.q[0]);
    WgmmaWait<0>();
    FenceRegisters(s);
    MakeProbabilities(w.first * Z::kM, sh.lse2[0]);
    Wait(&sh.v_full, 0);
    Wait(&sh.do_full[0], 0);
    Scores(dp, sh.v, sh.d_o[0]);
    WgmmaWait<0>();
    FenceRegisters(dp);
    Weights(0, 0);
    Round();
    int m = w.first;
    for (int it = 0; it < total - 1; ++it) {
      const int next = m + 1 == w.end ? w.first : m + 1;
      if constexpr (Z::kSums) {
        Step<true>(it, next * Z::kM, dq_head + m * kTile);
      } else {
        StepWithoutDq<true>(next * Z::kM);
      }
      m = next;
      if (m == w.first) dq_head += head_size;
    }
    if constexpr (Z::kSums) {
      Step<false>(total - 1, 0, dq_head + m * kTile);
    } else {
      StepWithoutDq<false>(0);
    }
  }

  __device__ __forceinline__ void Store(const float (&x)[Z::kD / 2], float factor, uint16_t* through,
                                        const CUtensorMap& map) {
    StoreKeys<Z::kD>(x, factor, group, through, map, w.kv, w.k0 + 64 * group, w.b, a.t);
  }

  __device__ __forceinline__ void Run(const CUtensorMap& dk_map, const CUtensorMap& dv_map) {
    Walk();
    Store(dv, 1, sh.v, dv_map);                    // only this warpgroup reads them
    if constexpr (Z::kSums) NamedBarrier(1, 256);  // both are done with the keys
    TurnKeys<Z>(a, w.k0, group, (w.end - w.first) * a.group, sh, dk);
    Store(dk, a.scale, sh.k, dk_map);
    if (InWarpgroup() == 0) WaitStoresRead<0>();
  }
};

template <typename Z>
__global__ void __launch_bounds__(kBackwardThreads, 1)
    Backward(const BackwardArgs a, const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
             const __grid_constant__ CUtensorMap v, const __grid_constant__ CUtensorMap d_o,
             const __grid_constant__ CUtensorMap dk, const __grid_constant__ CUtensorMap dv) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // a build for several architectures compiles this for all
  extern __shared__ uint8_t raw[];
  auto& sh = *reinterpret_cast<typename Z::Shared*>(raw + (1024 - Shared(raw) % 1024) % 1024);
  if (threadIdx.x == 0) {
    BarrierInit(&sh.k_full, 1), BarrierInit(&sh.v_full, 1);
    for (int i = 0; i < Z::kQStages; ++i) BarrierInit(&sh.q_full[i], 1), BarrierInit(&sh.q_empty[i], 4 * kConsumers);
    for (int i = 0; i < Z::kDoStages; ++i) BarrierInit(&sh.do_full[i], 1), BarrierInit(&sh.do_empty[i], 4 * kConsumers);
    for (int i = 0; i < 2; ++i) BarrierInit(&sh.ds_full[i], 4 * kConsumers);
    FenceBarrierInit();
  }
  __syncthreads();
  const Work w = WorkOf<Z>(a);
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 0) {
    GiveRegisters<24>();
    if (threadIdx.x == 0) FetchBackward<Z>(a, w, sh, q, k, v, d_o);
  } else {
    TakeRegisters<240>();
    BackwardConsumer<Z>{a, w, sh, group - 1}.Run(dk, dv);
  }
#endif
}

int64_t Padded(int64_t queries) { return (queries + kRowUnit - 1) / kRowUnit * kRowUnit; }

template <typename Z>
absl::Status LaunchKeys(const AttentionCall& c, BackwardArgs a, cudaStream_t stream) {
  ASSIGN_OR_RETURN(const CUtensorMap q, HeadsMap(c.q, c.b, c.s, c.hq, c.d, c.q_row, Z::kM));
  ASSIGN_OR_RETURN(const CUtensorMap k, HeadsMap(c.k, c.b, c.t, c.hk, c.d, c.kv_row, kKeys));
  ASSIGN_OR_RETURN(const CUtensorMap v, HeadsMap(c.v, c.b, c.t, c.hk, c.d, c.kv_row, kKeys));
  ASSIGN_OR_RETURN(const CUtensorMap d_o, HeadsMap(c.d_o, c.b, c.s, c.hq, c.d, c.hq * c.d, Z::kM));
  ASSIGN_OR_RETURN(const CUtensorMap dk, HeadsMap(c.dk, c.b, c.t, c.hk, c.d, c.kv_row, 64));
  ASSIGN_OR_RETURN(const CUtensorMap dv, HeadsMap(c.dv, c.b, c.t, c.hk, c.d, c.kv_row, 64));
  a.order = OrderOf((c.t + kKeys - 1) / kKeys, c.b * c.hk, 1, c.s * c.group * c.d * 8, 8 << 20);
  constexpr int kBytes = sizeof(typename Z::Shared) + 1024;
  RETURN_IF_ERROR(
      CudaStatus(cudaFuncSetAttribute(Backward<Z>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "attention"));
  Backward<Z><<<a.order.tiles * a.order.heads, kBackwardThreads, kBytes, stream>>>(a, q, k, v, d_o, dk, dv);
  return Launched("attention on wgmma, backward by keys");
}

BackwardArgs ArgsOf(const AttentionCall& c, Determinism determinism, void* workspace) {
  const int64_t padded = Padded(c.s), rows = c.b * c.hq * padded;
  float* const lse2 = static_cast<float*>(workspace);
  float* const delta = lse2 + rows;
  return {.hq = static_cast<int>(c.hq),
          .hk = static_cast<int>(c.hk),
          .group = static_cast<int>(c.group),
          .s = static_cast<int>(c.s),
          .t = static_cast<int>(c.t),
          .causal = c.mask == AttentionMask::kCausal,
          .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.d))),
          .padded = static_cast<int>(padded),
          .lse2 = lse2,
          .delta = delta,
          .counter = reinterpret_cast<int*>(delta + rows),
          .dq = determinism == Determinism::kFast ? delta + rows + kCounterFloats : nullptr,
          .angles = Sm90AttentionTurns(c) ? reinterpret_cast<const float4*>(c.turn.table) : nullptr,
          .angle_stride = c.turn.count == c.s ? 0 : static_cast<int>(c.s)};
}

}  // namespace
}  // namespace sm90

int64_t Sm90AttentionBackwardWorkspace(const AttentionCall& c, Determinism determinism) {
  const int64_t rows = c.b * c.hq * sm90::Padded(c.s), sums = determinism == Determinism::kFast ? rows * c.d : 0;
  return (2 * rows + sm90::kCounterFloats + sums) * static_cast<int64_t>(sizeof(float));
}

absl::Status Sm90AttentionBackward(const AttentionCall& c, Determinism determinism, void* workspace,
                                   cudaStream_t stream) {
  using sm90::BackwardShape, sm90::Dq;
  // From so many keys on a pair of blocks shares dq: it ends with one tile of queries more, and takes a while to get into step.
  constexpr int64_t kKeysOfPairs = 2048;
  const sm90::BackwardArgs a = sm90::ArgsOf(c, determinism, workspace);
  RETURN_IF_ERROR(sm90::PrepareRows(c, a, stream));
  if (determinism == Determinism::kBitExact) {
    RETURN_IF_ERROR((c.d == 64 ? sm90::LaunchKeys<BackwardShape<64, 64, Dq::kElsewhere>>(c, a, stream)
                               : sm90::LaunchKeys<BackwardShape<128, 64, Dq::kElsewhere>>(c, a, stream)));
    return sm90::LaunchQueryGradient(c, a, stream);
  }
  if (c.d == 64) {
    RETURN_IF_ERROR((sm90::LaunchKeys<BackwardShape<64, 128, Dq::kSums>>(c, a, stream)));
  } else if (c.t < kKeysOfPairs) {
    RETURN_IF_ERROR((sm90::LaunchKeys<BackwardShape<128, 64, Dq::kSums>>(c, a, stream)));
  } else {
    RETURN_IF_ERROR(sm90::LaunchPairs(c, a, stream));
  }
  return sm90::RoundQueryGradient(c, a, stream);
}

}  // namespace strata
