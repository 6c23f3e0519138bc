// Backward attention on Hopper, by pairs of blocks, for heads of 128. The two blocks of a cluster have neighbouring 128 keys of a kv head and
// walk the queries that see any of them together, tile by tile, of every query head of their kv head: each fetches half of a tile for
// both. As in core/kernels/attention_sm90_bwd.cu, a block's two warpgroups have 64 keys each, and dk and dv stay in registers. Of dq
// the blocks take tiles in turn: whose turn it is multiplies ds of all 256 keys, of which the other sent it its half in bf16, so that
// half as much is added to the float32 sums in global memory. It does so a tile later, so that nobody waits for ds.
#include <algorithm>
#include <cmath>

#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/attention_sm90_keys.cuh"
#include "core/kernels/attention_sm90_rope.cuh"

namespace strata {
namespace sm90 {
namespace {

constexpr int kBlocks = 2, kThreads = 128 * 3, kHalfBytes = 64 * kBoxRowBytes;  // of a tile of queries
constexpr uint16_t kBoth = 3;

struct Z {  // sizes, as a type for what other kernels share
  static constexpr int kD = 128, kM = 64, kBoxes = kD / kBoxColumns;
  static constexpr int kQStages = 3, kDoStages = 2, kDsBytes = kKeys * kM * 2;
  struct Shared {
    alignas(1024) uint16_t k[kBlocks][kKeys * kD];
    alignas(1024) uint16_t v[kKeys * kD];
    alignas(1024) uint16_t q[kQStages][kM * kD];
    alignas(1024) uint16_t d_o[kDoStages][kM * kD];
    alignas(1024) uint16_t ds[2][kKeys * kM];  // [keys, queries] of even tiles and odd ones
    alignas(1024) uint16_t received[kKeys * kM];
    alignas(16) float lse2[kQStages][kM];
    alignas(16) float delta[kDoStages][kM];
    uint64_t k_full, v_full, q_full[kQStages], q_empty[kQStages], do_full[kDoStages], do_empty[kDoStages];
    uint64_t ds_full, ds_empty;              // of tiles whose dq is this block's turn
    uint64_t to_send, sent;                  // of the other tiles: to be copied, and there
    uint64_t received_full, received_empty;  // here; empty: there
  };
};

// The block's work: its keys from k0, and queries of tiles [first, end) of each head of the kv head's group in row b. The first
// `blind` of `total` see none of its keys.
struct Work {
  int b, kv, k0, first, end, blind, total;
  uint32_t rank;
};
__device__ __forceinline__ Work WorkOf(const BackwardArgs& a) {
  const TileOrder::Place place = a.order.At(static_cast<int>(blockIdx.x) / kBlocks);  // early keys are seen by most
  const auto rank = ClusterRank();
  const int pair_k0 = place.tile * kBlocks * kKeys, k0 = pair_k0 + static_cast<int>(rank) * kKeys;
  const int first = a.causal ? pair_k0 / Z::kM : 0, end = (a.s + Z::kM - 1) / Z::kM, own = a.causal ? k0 / Z::kM : 0;
  return {place.head / a.hk,           place.head % a.hk,       k0,  first, end,
          own < end ? own - first : 0, (end - first) * a.group, rank};
}

__device__ __forceinline__ void Fetch(const BackwardArgs& a, const Work& w, Z::Shared& sh, const CUtensorMap& q,
                                      const CUtensorMap& k, const CUtensorMap& v, const CUtensorMap& d_o) {
  const int rank = static_cast<int>(w.rank);
  const auto load = [&](uint16_t* to, const CUtensorMap& map, float* to_row, const float* row, uint64_t& full, int head,
                        int m) {
    ArriveExpecting(&full, Z::kM * (Z::kD * 2 + 4));
    LoadBoxToAll(to + rank * (kHalfBytes / 2), map, &full, rank * kBoxColumns, head, m * Z::kM, w.b, kBoth);
    LoadBytes(to_row, row + (int64_t{w.b} * a.hq + head) * a.padded + m * Z::kM, Z::kM * 4, &full);
  };
  ArriveExpecting(&sh.k_full, sizeof(sh.k));
#pragma unroll
  for (int x = 0; x < Z::kBoxes; ++x) {
    LoadBoxToAll(sh.k[rank] + x * kKeys * kBoxColumns, k, &sh.k_full, x * kBoxColumns, w.kv, w.k0, w.b, kBoth);
  }
  FetchTiles<Z>(a, w, sh, q, d_o, load, [&] {
    ArriveExpecting(&sh.v_full, sizeof(sh.v));
    LoadBoxes<kKeys, Z::kBoxes>(sh.v, v, &sh.v_full, w.kv, w.k0, w.b);
  });
}

// Copies ds of the tiles whose dq is the other block's turn to it.
__device__ __forceinline__ void Send(const Work& w, Z::Shared& sh) {
  const auto peer = w.rank ^ 1;
  for (int n = static_cast<int>(peer); n < w.total; n += 2) {
    const uint32_t parity = n >> 1 & 1;
    Wait(&sh.to_send, parity);
    Wait(&sh.received_empty, parity ^ 1);
    SendBytes(sh.received, sh.ds[n & 1], Z::kDsBytes, &sh.received_full, peer);
  }
}

struct Consumer {
  const BackwardArgs& a;
  const Work& w;
  Z::Shared& sh;
  int group;  // of the consumers
  int rank;
  static constexpr int kQBox = Z::kM * kBoxRowBytes, kTile = Z::kM * Z::kD;

  Ring<Z::kQStages> qs;    // of the next scores
  Ring<Z::kDoStages> dos;  // of the next dp
  float dk[Z::kD / 2], dv[Z::kD / 2], s[Z::kM / 2], dp[Z::kM / 2], dq[32];
  uint32_t p[Z::kM / 4];

  // Of the warp, in both blocks.
  __device__ __forceinline__ static void Release(uint64_t& bar) {
    if (threadIdx.x % 32 < kBlocks) ArriveAt(&bar, threadIdx.x % 32);
  }
  __device__ __forceinline__ bool Ours(int n) const { return (n & 1) == rank; }  // dq of tile n

  // to = own keys of `keys` times `queries`, transposed scores. Issues.
  __device__ __forceinline__ void Scores(float (&to)[Z::kM / 2], const uint16_t* keys, const uint16_t* queries) {
    IssueScores<Z::kD>(to, keys + group * 64 * kBoxColumns, kKeysBox, queries, kQBox);
  }
  // The warpgroup's 64 columns of dq, of the pair's keys.
  __device__ __forceinline__ void QueryGradient(const uint16_t* weights) {
    const int columns = group * kKeys * kBoxColumns;
    const uint64_t x = Descriptor(Shared(weights), 0), y = Descriptor(Shared(sh.k[rank] + columns), 0),
                   their_x = Descriptor(Shared(sh.received), 0),
                   their_y = Descriptor(Shared(sh.k[rank ^ 1] + columns), 0);
    Forget(dq);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      Wgmma<Major::kMN, Major::kMN>(dq, x + StepK<Major::kMN>(i, 0), y + StepK<Major::kMN>(i, 0), i > 0);
    }
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      Wgmma<Major::kMN, Major::kMN>(dq, their_x + StepK<Major::kMN>(i, 0), their_y + StepK<Major::kMN>(i, 0), 1);
    }
    WgmmaCommit();
  }
  __device__ __forceinline__ void AddQueryGradient(int tile) {
    float* const to = a.dq + int64_t{tile} * kTile + group * 64 * 64 + InWarpgroup() * 4;
#pragma unroll
    for (int i = 0; i < 8; ++i) AddToGlobal(to + i * 512, dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
  }

  // The warpgroups issue products in turn: one makes p and ds while the other multiplies.
  __device__ __forceinline__ void TakeTurn() { NamedBarrier(4 + group, 256); }
  __device__ __forceinline__ void GiveTurn() { NamedArrive(4 + (group ^ 1), 256); }

  // Until ds of all the pair's keys and tile n, ours, is here.
  __device__ __forceinline__ void WaitForPair(int n) {
    const uint32_t parity = n >> 1 & 1;
    Wait(&sh.ds_full, parity);
    Wait(&sh.received_full, parity);
    if (threadIdx.x == 128) ArriveExpecting(&sh.received_full, Z::kDsBytes), ArriveAt(&sh.sent, rank ^ 1);
  }
  // The warp's part of dq of such a tile is done.
  __device__ __forceinline__ void ReleasePair() {
    if (threadIdx.x % 32 == 0) Arrive(&sh.ds_empty), ArriveAt(&sh.received_empty, rank ^ 1);
  }
  // Until ds of tile n may be written.
  __device__ __forceinline__ void WaitForPlace(int n) { Wait(Ours(n) ? &sh.ds_empty : &sh.sent, (n >> 1 & 1) ^ 1); }
  // The warpgroup has written its rows of ds of tile n.
  __device__ __forceinline__ void Publish(int n) {
    NamedBarrier(2 + group, 128);
    if (InWarpgroup() == 0) Arrive(Ours(n) ? &sh.ds_full : &sh.to_send);
  }
  // ds of tile n, whose p is in s and dp in dp.
  __device__ __forceinline__ void Weights(int n, int do_slot) {
    ScoreGradient(s, sh.delta[do_slot], dp);
    WaitForPlace(n);
    ShareRows(dp, 1, group, sh.ds[n & 1]);
    Publish(n);
  }
  __device__ __forceinline__ void Round() {
#pragma unroll
    for (int i = 0; i < Z::kM / 4; ++i) p[i] = Pack(s[2 * i], s[2 * i + 1]);
  }

  // dp of the next tile.
  __device__ __forceinline__ void IssueScoreGradient() {
    Wait(&sh.do_full[dos.slot], dos.parity);
    Scores(dp, sh.v, sh.d_o[dos.slot]);
  }
  __device__ __forceinline__ void ReleaseValueGradient(int do_slot) {
    FenceRegisters(dv), FenceRegisters(p);
    Release(sh.do_empty[do_slot]);
  }

  // dk and dv of tile n, p and ds of the next, whose first query is `next_q0`, and with kDq dq of the tile before, to `sums`. A warpgroup's
  // products are issued in one go: issuing waits for most of those before.
  template <bool kDq, bool kMore>
  __device__ __forceinline__ void Step(int n, int next_q0, int sums) {
    group = Opaque(group), rank = Opaque(rank);
    const int q_slot = qs.slot, do_slot = dos.slot;
    qs.Next(), dos.Next();
    TakeTurn();
    if constexpr (kMore) {
      Wait(&sh.q_full[qs.slot], qs.parity);
      Scores(s, sh.k[rank], sh.q[qs.slot]);
    }
    if constexpr (kDq) {
      WaitForPair(n - 1);
      QueryGradient(sh.ds[(n - 1) & 1]);
    }
    IssueOfRegisters(dv, p, sh.d_o[do_slot]);
    if constexpr (kMore && !kDq) IssueScoreGradient();
    IssueKeyGradient<Z::kM>(dk, sh.ds[n & 1], group, sh.q[q_slot]);
    if (kMore || group == 0) GiveTurn();
    if constexpr (kMore) {
      WgmmaWait<3>();
      FenceRegisters(s);
      Probabilities(a, w.k0, group, next_q0, sh.lse2[qs.slot], s);
    }
    if constexpr (kDq) {
      WgmmaWait<2>();
      FenceRegisters(dq);
      ReleasePair();
      AddQueryGradient(sums);
      WgmmaWait<1>();
      ReleaseValueGradient(do_slot);
      if constexpr (kMore) IssueScoreGradient();
    } else {
      WgmmaWait<kMore ? 2 : 1>();
      ReleaseValueGradient(do_slot);
    }
    if constexpr (kMore) {
      WgmmaWait<kDq ? 0 : 1>();
      FenceRegisters(dp);
      Weights(n + 1, dos.slot);
    }
    WgmmaWait<0>();
    FenceRegisters(dk);
    Release(sh.q_empty[q_slot]);
    if constexpr (kMore) {
      FenceRegisters(s);
      Round();
    }
  }

  // Tile n sees none of the keys.
  __device__ __forceinline__ void Pass(int n) {
    Wait(&sh.q_full[qs.slot], qs.parity);
    Wait(&sh.do_full[dos.slot], dos.parity);
    Release(sh.q_empty[qs.slot]), Release(sh.do_empty[dos.slot]);
    qs.Next(), dos.Next();
    auto* const to = reinterpret_cast<uint4*>(sh.ds[n & 1] + group * 64 * kBoxColumns);
#pragma unroll
    for (int i = 0; i < kHalfBytes / 16 / 128; ++i) to[i * 128 + InWarpgroup()] = make_uint4(0, 0, 0, 0);
    FenceToAsync();
    Publish(n);
  }

  __device__ __forceinline__ void Walk() {
    const int head_tiles = a.padded / Z::kM;
    int head = (w.b * a.hq + w.kv * a.group) * head_tiles;
#pragma unroll
    for (int i = 0; i < Z::kD / 2; ++i) dk[i] = dv[i] = 0;

    Wait(&sh.k_full, 0);
    int n = 0;
    for (; n < w.blind; ++n) Pass(n);
    int m = w.first + n;
    Wait(&sh.q_full[qs.slot], qs.parity);
    Scores(s, sh.k[rank], sh.q[qs.slot]);
    WgmmaWait<0>();
    FenceRegisters(s);
    Probabilities(a, w.k0, group, m * Z::kM, sh.lse2[qs.slot], s);
    Wait(&sh.v_full, 0);
    Wait(&sh.do_full[dos.slot], dos.parity);
    Scores(dp, sh.v, sh.d_o[dos.slot]);
    WgmmaWait<0>();
    FenceRegisters(dp);
    Weights(n, dos.slot);
    Round();

    if (group == 1) GiveTurn();
    int before = head + m - 1;  // tile n - 1's sums
    for (; n < w.total - 1; ++n) {
      const int next = m + 1 == w.end ? w.first : m + 1;
      if (n > 0 && Ours(n - 1)) {
        Step<true, true>(n, next * Z::kM, before);
      } else {
        Step<false, true>(n, next * Z::kM, before);
      }
      before = head + m;
      m = next;
      if (m == w.first) head += head_tiles;
    }
    if (n > 0 && Ours(n - 1)) {
      Step<true, false>(n, 0, before);
    } else {
      Step<false, false>(n, 0, before);
    }
    if (Ours(n)) {
      WaitForPair(n);
      QueryGradient(sh.ds[n & 1]);
      WgmmaWait<0>();
      FenceRegisters(dq);
      AddQueryGradient(head + m);
    }
  }

  __device__ __forceinline__ void Run(const CUtensorMap& dk_map, const CUtensorMap& dv_map) {
    Walk();
    const int row = w.k0 + 64 * group;
    StoreKeys<Z::kD>(dv, 1, group, sh.v, dv_map, w.kv, row, w.b, a.t);  // only this warpgroup reads them
    NamedBarrier(1, 256);                                               // both are done with the keys
    TurnKeys<Z>(a, w.k0, group, w.total, sh, dk);
    StoreKeys<Z::kD>(dk, a.scale, group, sh.k[rank], dk_map, w.kv, row, w.b, a.t);
    if (InWarpgroup() == 0) WaitStoresRead<0>();
  }
};

__global__ void __launch_bounds__(kThreads, 1)
    BackwardPair(const BackwardArgs a, const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
                 const __grid_constant__ CUtensorMap v, const __grid_constant__ CUtensorMap d_o,
                 const __grid_constant__ CUtensorMap dk, const __grid_constant__ CUtensorMap dv) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL                    // a build for several architectures compiles this for all
  extern __shared__ __align__(1024) uint8_t raw[];  // no room to align it here
  auto& sh = *reinterpret_cast<Z::Shared*>(raw);
  if (threadIdx.x == 0) {
    constexpr int kWarps = kBlocks * kKeyWarps;
    BarrierInit(&sh.k_full, 1), BarrierInit(&sh.v_full, 1);
    for (int i = 0; i < Z::kQStages; ++i) BarrierInit(&sh.q_full[i], 1), BarrierInit(&sh.q_empty[i], kWarps);
    for (int i = 0; i < Z::kDoStages; ++i) BarrierInit(&sh.do_full[i], 1), BarrierInit(&sh.do_empty[i], kWarps);
    BarrierInit(&sh.ds_full, 2), BarrierInit(&sh.ds_empty, kKeyWarps);
    BarrierInit(&sh.to_send, 2), BarrierInit(&sh.sent, 1);
    BarrierInit(&sh.received_full, 1), BarrierInit(&sh.received_empty, kKeyWarps);
    FenceBarrierInit();
    ArriveExpecting(&sh.received_full, Z::kDsBytes);
  }
  ClusterSync();
  const Work w = WorkOf(a);
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 0) {
    GiveRegisters<24>();
    if (threadIdx.x == 0) Fetch(a, w, sh, q, k, v, d_o);
    if (threadIdx.x == 32) Send(w, sh);
  } else {
    TakeRegisters<240>();
    Consumer{a, w, sh, group - 1, static_cast<int>(w.rank)}.Run(dk, dv);
  }
  ClusterSync();  // neither is gone while the other may write to it
#endif
}

}  // namespace

absl::Status LaunchPairs(const AttentionCall& c, BackwardArgs a, cudaStream_t stream) {
  constexpr int kPair = kBlocks * kKeys;
  a.order = OrderOf((c.t + kPair - 1) / kPair, c.b * c.hk, 1, c.s * c.group * c.d * 8, 8 << 20);
  ASSIGN_OR_RETURN(const CUtensorMap q, HeadsMap(c.q, c.b, c.s, c.hq, c.d, c.q_row, 64));
  ASSIGN_OR_RETURN(const CUtensorMap k, HeadsMap(c.k, c.b, c.t, c.hk, c.d, c.kv_row, kKeys));
  ASSIGN_OR_RETURN(const CUtensorMap v, HeadsMap(c.v, c.b, c.t, c.hk, c.d, c.kv_row, kKeys));
  ASSIGN_OR_RETURN(const CUtensorMap d_o, HeadsMap(c.d_o, c.b, c.s, c.hq, c.d, c.hq * c.d, 64));
  ASSIGN_OR_RETURN(const CUtensorMap dk, HeadsMap(c.dk, c.b, c.t, c.hk, c.d, c.kv_row, 64));
  ASSIGN_OR_RETURN(const CUtensorMap dv, HeadsMap(c.dv, c.b, c.t, c.hk, c.d, c.kv_row, 64));
  constexpr int kBytes = sizeof(Z::Shared);
  static_assert(kBytes <= 227 * 1024);
  RETURN_IF_ERROR(
      CudaStatus(cudaFuncSetAttribute(BackwardPair, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "attention"));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = kBlocks, cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t launch{};
  launch.gridDim = dim3(kBlocks * a.order.tiles * a.order.heads);
  launch.blockDim = dim3(kThreads);
  launch.dynamicSmemBytes = kBytes;
  launch.stream = stream;
  launch.attrs = &cluster, launch.numAttrs = 1;
  return CudaStatus(cudaLaunchKernelEx(&launch, BackwardPair, a, q, k, v, d_o, dk, dv),
                    "attention on wgmma, backward by pairs");
}

}  // namespace sm90
}  // namespace strata
