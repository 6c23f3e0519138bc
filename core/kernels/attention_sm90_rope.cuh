#pragma once
// Gradients of queries and keys, turned back (core/ops/rope.h) before they are rounded, the only time. A warp has 16 rows of an accumulator
// of kD columns: x[4 j + 2 r + e] is column 8 j + 2 (lane % 4) + e of row lane / 4 + 8 r; its partner, kD / 2 columns on, is the same
// thread's. What they are turned by is a tiled table of rotations (core/kernels/rope_cuda.h): 1 KB for 8 columns of the 16 rows.

#include "core/kernels/attention_sm90_bwd.cuh"
#include "core/kernels/rope.cuh"

namespace strata::sm90 {

template <int kD>
inline constexpr int kWarpAngles = kD * 64;  // bytes of 16 rows of angles

// Those of the 16 rows from `row` in batch row b.
template <int kD>
__device__ __forceinline__ const float4* AnglesOf(const BackwardArgs& a, int b, int row) {
  return a.angles + (int64_t{b} * a.angle_stride + row) / 16 * (kWarpAngles<kD> / 16);
}

// Two columns and their partners.
__device__ __forceinline__ void TurnTwo(float& u0, float& u1, float& v0, float& v1, float4 angles) {
  TurnPair(u0, v0, make_float2(angles.x, angles.y));
  TurnPair(u1, v1, make_float2(angles.z, angles.w));
}

// The warp's 16 rows, turned by angles(j, r), of columns 8 j + 2 (lane % 4) and the next.
template <int kD, typename Angles>
__device__ __forceinline__ void TurnRows(float (&x)[kD / 2], const Angles& angles) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int j = 0; j < kD / 16; ++j) {
      const int u = 4 * j + 2 * r, v = u + kD / 4;
      TurnTwo(x[u], x[u + 1], x[v], x[v + 1], angles(j, r));
    }
  }
}

// dk's angles come when no more tiles of queries do, into the rings that these came by: of the first 64 keys into q's, of the others into
// do's; of kM / 32 warps a slot. Rings are where the next tile would lie.
template <typename Z>
__device__ __forceinline__ void FetchKeyAngles(const BackwardArgs& a, int b, int k0, typename Z::Shared& sh,
                                               Ring<Z::kQStages> qs, Ring<Z::kDoStages> dos) {
  if (a.angles == nullptr) return;
  constexpr int kRows = Z::kM / 2;  // of keys, a slot
  const auto fetch = [&](uint16_t* to, uint64_t& empty, uint64_t& full, uint32_t parity, int row) {
    if (row >= a.t) return;
    Wait(&empty, parity ^ 1);
    const uint32_t bytes = min(kRows, a.t - row) / 16 * kWarpAngles<Z::kD>;
    ArriveExpecting(&full, bytes);
    LoadBytes(to, AnglesOf<Z::kD>(a, b, row), bytes, &full);
  };
  for (int k = 0; k < 64; k += kRows) {
    fetch(sh.q[qs.slot], sh.q_empty[qs.slot], sh.q_full[qs.slot], qs.parity, k0 + k);
    fetch(sh.d_o[dos.slot], sh.do_empty[dos.slot], sh.do_full[dos.slot], dos.parity, k0 + 64 + k);
    qs.Next(), dos.Next();
  }
}
// dk of a warpgroup's keys, `group` of two, after `tiles` of queries.
template <typename Z>
__device__ __forceinline__ void TurnKeys(const BackwardArgs& a, int k0, int group, int tiles, typename Z::Shared& sh,
                                         float (&dk)[Z::kD / 2]) {
  constexpr int kWarps = Z::kM / 32;  // a slot
  const int warp = static_cast<int>(threadIdx.x) % 128 / 32;
  if (a.angles == nullptr || k0 + 64 * group + 16 * warp >= a.t) return;
  const int at = tiles + warp / kWarps, stages = group == 0 ? Z::kQStages : Z::kDoStages, slot = at % stages;
  Wait(group == 0 ? &sh.q_full[slot] : &sh.do_full[slot], at / stages & 1);
  const uint32_t from =
      Shared(group == 0 ? sh.q[slot] : sh.d_o[slot]) + warp % kWarps * kWarpAngles<Z::kD> + threadIdx.x % 32 * 16;
  TurnRows<Z::kD>(dk, [&](int j, int r) { return LoadShared(from + j * 1024 + r * 512); });
}

// What a block fetches tile by tile: load(to, map, to_row, row, full, head, m) of q and do with their rows' lse2 and delta, for every
// query head of its kv head; v by own_v() once q of the first tile is on its way, and dk's angles at the end.
template <typename Z, typename Work, typename Load, typename LoadOwn>
__device__ __forceinline__ void FetchTiles(const BackwardArgs& a, const Work& w, typename Z::Shared& sh,
                                           const CUtensorMap& q, const CUtensorMap& d_o, const Load& load,
                                           const LoadOwn& own_v) {
  Ring<Z::kQStages> qs;
  Ring<Z::kDoStages> dos;
  bool own = true;
  for (int head = w.kv * a.group; head < (w.kv + 1) * a.group; ++head) {
    for (int m = w.first; m < w.end; ++m) {
      Wait(&sh.q_empty[qs.slot], qs.parity ^ 1);
      load(sh.q[qs.slot], q, sh.lse2[qs.slot], a.lse2, sh.q_full[qs.slot], head, m);
      qs.Next();
      if (own) own_v();
      own = false;
      Wait(&sh.do_empty[dos.slot], dos.parity ^ 1);
      load(sh.d_o[dos.slot], d_o, sh.delta[dos.slot], a.delta, sh.do_full[dos.slot], head, m);
      dos.Next();
    }
  }
  FetchKeyAngles<Z>(a, w.b, w.k0, sh, qs, dos);
}

}  // namespace strata::sm90
