// Forward attention on Hopper. A block is one warpgroup that only fetches and kConsumers that compute, 64 queries each. Blocks stay
// and take tile after tile; the fetching thread takes the number of the next from a counter while the others compute.
//   s = q k^T;  m' = max(m, rowmax s);  p = exp2(c s - c m');  l = l exp2(c m - c m') + rowsum p;  o = o exp2(c m - c m') + p v
// with c = log2(e) / sqrt(d). The products s of a tile of keys are issued before p v of the tile before, across tiles of queries
// too, so that its softmax runs beside p v; a token goes around the warpgroups, so that one issues products while another is in its
// softmax.
#include <algorithm>
#include <cmath>

#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/attention_sm90.cuh"
#include "core/kernels/attention_sm90.h"
#include "core/kernels/attention_sm90_host.h"

namespace strata {
namespace sm90 {
namespace {

struct ForwardArgs {
  TileOrder order;
  int hq, group, s, t;  // group: query heads a kv head
  bool causal;
  float scale;
  float* lse;    // [b, s, hq]
  int* counter;  // tiles taken beyond the first of each block
};

template <int kHeadDim, int kConsumerGroups, int kKeys, int kRingStages>
struct ForwardShape {
  static constexpr int kD = kHeadDim, kConsumers = kConsumerGroups, kN = kKeys, kStages = kRingStages;
  static constexpr int kM = 64 * kConsumers, kThreads = 128 * (kConsumers + 1), kBoxes = kD / kBoxColumns;
  static constexpr int kOwnRegisters = kConsumers == 2 ? 240 : 160, kFetchRegisters = kConsumers == 2 ? 24 : 32;
  struct Shared {
    alignas(1024) uint16_t q[2][kM * kD];
    alignas(1024) uint16_t k[kStages][kN * kD];
    alignas(1024) uint16_t v[kStages][kN * kD];
    alignas(1024) uint16_t o[kConsumers][64 * kD];
    uint64_t q_full[2], q_empty[2], k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
    int tile[2];  // guarded by q_full and q_empty
  };
};

struct Tile {
  int b, h, q0;  // first query
};
__device__ __forceinline__ Tile TileAt(const ForwardArgs& a, int number, int rows) {  // late queries see most keys
  const TileOrder::Place place = a.order.At(number);
  return {place.head / a.hq, place.head % a.hq, (a.order.tiles - 1 - place.tile) * rows};
}

__device__ __forceinline__ int KeyTiles(const ForwardArgs& a, int q0, int rows, int keys) {
  const int seen = a.causal ? min(a.t, q0 + rows) : a.t;
  return (seen + keys - 1) / keys;
}

// The fetching thread.
template <typename Z>
__device__ __forceinline__ void Fetch(const ForwardArgs& a, typename Z::Shared& sh, const CUtensorMap& q,
                                      const CUtensorMap& k, const CUtensorMap& v) {
  const int total = a.order.tiles * a.order.heads;
  Ring<2> qs;
  Ring<Z::kStages> ks, vs;
  for (int number = blockIdx.x;;) {
    if (number >= total) {
      Wait(&sh.q_empty[qs.slot], qs.parity ^ 1);
      sh.tile[qs.slot] = -1;
      Arrive(&sh.q_full[qs.slot]);
      return;
    }
    const Tile tile = TileAt(a, number, Z::kM);
    const int next = static_cast<int>(gridDim.x) + atomicAdd(a.counter, 1), kv = tile.h / a.group;
    const auto load_k = [&](int n) {
      Wait(&sh.k_empty[ks.slot], ks.parity ^ 1);
      ArriveExpecting(&sh.k_full[ks.slot], Z::kN * Z::kD * 2);
      LoadBoxes<Z::kN, Z::kBoxes>(sh.k[ks.slot], k, &sh.k_full[ks.slot], kv, n * Z::kN, tile.b);
      ks.Next();
    };
    int n = KeyTiles(a, tile.q0, Z::kM, Z::kN) - 1;
    load_k(n);
    Wait(&sh.q_empty[qs.slot], qs.parity ^ 1);
    sh.tile[qs.slot] = number;
    ArriveExpecting(&sh.q_full[qs.slot], Z::kM * Z::kD * 2);
    LoadBoxes<Z::kM, Z::kBoxes>(sh.q[qs.slot], q, &sh.q_full[qs.slot], tile.h, tile.q0, tile.b);
    qs.Next();
    for (; n >= 0; --n) {
      if (n > 0) load_k(n - 1);
      Wait(&sh.v_empty[vs.slot], vs.parity ^ 1);
      ArriveExpecting(&sh.v_full[vs.slot], Z::kN * Z::kD * 2);
      LoadBoxes<Z::kN, Z::kBoxes>(sh.v[vs.slot], v, &sh.v_full[vs.slot], kv, n * Z::kN, tile.b);
      vs.Next();
    }
    number = next;
  }
}

// What a thread has of the rows lane / 4 and lane / 4 + 8 of its warp's 16.
template <typename Z>
struct Rows {
  float s[Z::kN / 2], o[Z::kD / 2], max[2], sum[2], decay[2];
  uint32_t p[Z::kN / 4];
};

// s := p of the tile of keys from k0, max, sum and decay with it.
template <bool kMasked, typename Z>
__device__ __forceinline__ void Softmax(const ForwardArgs& a, float c, int row, int k0, Rows<Z>& x) {
  if constexpr (kMasked) {
    const int column = k0 + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int end = (a.causal ? min(a.t, row + 8 * r + 1) : a.t) - column;  // of what the row sees
#pragma unroll
      for (int j = 0; j < Z::kN / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if (8 * j + e >= end) x.s[4 * j + 2 * r + e] = -INFINITY;
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float m0 = fmaxf(x.s[2 * r], x.s[2 * r + 1]), m1 = fmaxf(x.s[4 + 2 * r], x.s[4 + 2 * r + 1]);
#pragma unroll
    for (int j = 2; j < Z::kN / 8; j += 2) {
      m0 = fmaxf(m0, fmaxf(x.s[4 * j + 2 * r], x.s[4 * j + 2 * r + 1]));
      m1 = fmaxf(m1, fmaxf(x.s[4 * j + 4 + 2 * r], x.s[4 * j + 4 + 2 * r + 1]));
    }
    float m = fmaxf(x.max[r], fmaxf(m0, m1));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
    const float shift = kMasked && m == -INFINITY ? 0.0f : m * c;
    x.decay[r] = Exp2(x.max[r] * c - shift);
    x.max[r] = m;
    float s0 = 0, s1 = 0;
#pragma unroll
    for (int j = 0; j < Z::kN / 8; ++j) {
      float& p0 = x.s[4 * j + 2 * r];
      float& p1 = x.s[4 * j + 2 * r + 1];
      p0 = Exp2(p0 * c - shift);
      p1 = Exp2(p1 * c - shift);
      s0 += p0;
      s1 += p1;
    }
    x.sum[r] = x.sum[r] * x.decay[r] + (s0 + s1);
  }
}

template <typename Z>
__device__ __forceinline__ void Round(Rows<Z>& x) {
#pragma unroll
  for (int i = 0; i < Z::kN / 4; ++i) x.p[i] = Pack(x.s[2 * i], x.s[2 * i + 1]);
}

// Issue s = q k^T, o += p v. Descriptors of the whole operands.
template <typename Z>
__device__ __forceinline__ void Scores(Rows<Z>& x, uint64_t q, uint64_t k) {
#pragma unroll
  for (int i = 0; i < Z::kD / 16; ++i) {
    Wgmma<Major::kK, Major::kK>(x.s, q + StepK<Major::kK>(i, Z::kM * kBoxRowBytes),
                                k + StepK<Major::kK>(i, Z::kN * kBoxRowBytes), i > 0);
  }
  WgmmaCommit();
}
template <typename Z>
__device__ __forceinline__ void Values(Rows<Z>& x, uint64_t v, int accumulate) {
#pragma unroll
  for (int i = 0; i < Z::kN / 16; ++i) {
    WgmmaRegisters<Major::kMN>(x.o, x.p + 4 * i, v + StepK<Major::kMN>(i, 0), i > 0 ? 1 : accumulate);
  }
  WgmmaCommit();
}

// A warpgroup's 64 queries of tile after tile.
template <typename Z>
struct Consumer {
  const ForwardArgs& a;
  typename Z::Shared& sh;
  const int group;  // of the consumers
  const float c;
  Ring<2> qs;
  Ring<Z::kStages> ks, vs;
  Rows<Z> x;
  int begun = 0;  // whether o holds products of the tile

  __device__ __forceinline__ uint64_t DescriptorOf(const uint16_t* tile) {
    return Descriptor(Shared(tile), Z::kN * kBoxRowBytes);
  }
  __device__ __forceinline__ uint64_t Queries() {
    return Descriptor(Shared(sh.q[qs.slot] + group * 64 * kBoxColumns), 0);
  }
  __device__ __forceinline__ void Release(uint64_t& bar) {
    if (threadIdx.x % 32 == 0) Arrive(&bar);
  }
  static constexpr int kFirstToken = 1, kFirstOwn = kFirstToken + Z::kConsumers;  // named barriers
  __device__ __forceinline__ int RowOf(const Tile& tile) {
    const int own = static_cast<int>(threadIdx.x) % 128;
    return tile.q0 + 64 * group + own / 32 * 16 + own % 32 / 4;
  }
  __device__ __forceinline__ void Fresh() {
    x.max[0] = x.max[1] = -INFINITY;
    x.sum[0] = x.sum[1] = 0;
    begun = 0;
  }

  // Issues the scores of the next tile of keys and the products with the values of the one before, until the scores are done.
  __device__ __forceinline__ void Issue() {
    Wait(&sh.k_full[ks.slot], ks.parity);
    NamedBarrier(kFirstToken + group, 256);
    Forget(x.s), FenceRegisters(x.o), FenceRegisters(x.p);
    WgmmaFence();
    Scores(x, Queries(), DescriptorOf(sh.k[ks.slot]));
    Wait(&sh.v_full[vs.slot], vs.parity);
    WgmmaFence();
    Values(x, DescriptorOf(sh.v[vs.slot]), begun);
    begun = 1;
    NamedArrive(kFirstToken + (group + 1) % Z::kConsumers, 256);
    WgmmaWait<1>();
    FenceRegisters(x.s);
    Release(sh.k_empty[ks.slot]);
    ks.Next();
  }
  __device__ __forceinline__ void ValuesDone() {
    WgmmaWait<0>();
    FenceRegisters(x.o), FenceRegisters(x.p);
    Release(sh.v_empty[vs.slot]);
    vs.Next();
  }

  template <bool kMasked>
  __device__ __forceinline__ void Step(int row, int n) {
    Issue();
    Softmax<kMasked>(a, c, row, n * Z::kN, x);
    ValuesDone();
    Round(x);
#pragma unroll
    for (int i = 0; i < Z::kD / 2; ++i) x.o[i] *= x.decay[i / 2 % 2];
  }

  __device__ __forceinline__ void Store(const Tile& tile, const float (&max)[2], const float (&sum)[2],
                                        const CUtensorMap& o) {
    const int own = static_cast<int>(threadIdx.x) % 128, warp = own / 32, lane = own % 32;
    const int row0 = tile.q0 + 64 * group, row = row0 + warp * 16 + lane / 4;
    float over[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float l = sum[r];
      l += __shfl_xor_sync(0xffffffffu, l, 1);
      l += __shfl_xor_sync(0xffffffffu, l, 2);
      over[r] = 1 / l;
      const int i = row + 8 * r;
      if (lane % 4 == 0 && i < a.s) a.lse[(int64_t{tile.b} * a.s + i) * a.hq + tile.h] = max[r] * a.scale + logf(l);
    }
    if (own == 0) WaitStoresRead<0>();  // of the tile before
    NamedBarrier(kFirstOwn + group, 128);
    const uint32_t to = Shared(sh.o[group]);
    const int at = warp * 16 + lane % 16, chunk = lane / 16;
#pragma unroll
    for (int j = 0; j < Z::kD / 8; j += 2) {
      const uint32_t box = to + j / 8 * 64 * kBoxRowBytes;
      StoreMatrices(box + ChunkAt(at, j % 8 + chunk), Pack(x.o[4 * j] * over[0], x.o[4 * j + 1] * over[0]),
                    Pack(x.o[4 * j + 2] * over[1], x.o[4 * j + 3] * over[1]),
                    Pack(x.o[4 * j + 4] * over[0], x.o[4 * j + 5] * over[0]),
                    Pack(x.o[4 * j + 6] * over[1], x.o[4 * j + 7] * over[1]));
    }
    FenceToAsync();
    NamedBarrier(kFirstOwn + group, 128);
    if (own == 0 && row0 < a.s) {
#pragma unroll
      for (int b = 0; b < Z::kBoxes; ++b) {
        StoreBox(sh.o[group] + b * 64 * kBoxColumns, o, b * kBoxColumns, tile.h, row0, tile.b);
      }
      CommitStores();
    }
  }

  __device__ __forceinline__ void Run(const CUtensorMap& o) {
    if (group == Z::kConsumers - 1) NamedArrive(kFirstToken, 256);  // the first holds the token
    Wait(&sh.q_full[0], 0);
    int number = sh.tile[0];
    Tile tile = TileAt(a, number, Z::kM);
    int n = KeyTiles(a, tile.q0, Z::kM, Z::kN) - 1;
    Fresh();
    Wait(&sh.k_full[0], 0);
    Forget(x.s);
    WgmmaFence();
    Scores(x, Queries(), DescriptorOf(sh.k[0]));
    WgmmaWait<0>();
    FenceRegisters(x.s);
    Release(sh.k_empty[0]);
    ks.Next();
    Softmax<true>(a, c, RowOf(tile), n * Z::kN, x);
    Round(x);
    for (;;) {
      const int whole = (a.causal ? min(a.t, tile.q0 + 64 * group + 1) : a.t) / Z::kN;  // tiles before need no mask
      for (--n; n >= whole; --n) Step<true>(RowOf(tile), n);
      for (; n >= 0; --n) Step<false>(RowOf(tile), n);
      Release(sh.q_empty[qs.slot]);
      qs.Next();
      Wait(&sh.q_full[qs.slot], qs.parity);
      number = sh.tile[qs.slot];
      if (number < 0) break;
      const Tile done = tile;
      tile = TileAt(a, number, Z::kM);
      n = KeyTiles(a, tile.q0, Z::kM, Z::kN) - 1;
      Issue();
      const float max[2] = {x.max[0], x.max[1]}, sum[2] = {x.sum[0], x.sum[1]};
      Fresh();
      Softmax<true>(a, c, RowOf(tile), n * Z::kN, x);
      ValuesDone();
      Round(x);
      Store(done, max, sum, o);
    }
    Wait(&sh.v_full[vs.slot], vs.parity);
    FenceRegisters(x.o), FenceRegisters(x.p);
    WgmmaFence();
    Values(x, DescriptorOf(sh.v[vs.slot]), begun);
    ValuesDone();
    Store(tile, x.max, x.sum, o);
    if (group == 0) NamedBarrier(kFirstToken, 256);  // takes the token out
    if (threadIdx.x % 128 == 0) WaitStoresRead<0>();
  }
};

template <typename Z>
__global__ void __launch_bounds__(Z::kThreads, 1)
    Forward(const ForwardArgs a, const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
            const __grid_constant__ CUtensorMap v, const __grid_constant__ CUtensorMap o) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // a build for several architectures compiles this for all
  extern __shared__ uint8_t raw[];
  auto& sh = *reinterpret_cast<typename Z::Shared*>(raw + (1024 - Shared(raw) % 1024) % 1024);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) BarrierInit(&sh.q_full[i], 1), BarrierInit(&sh.q_empty[i], 4 * Z::kConsumers);
    for (int i = 0; i < Z::kStages; ++i) {
      BarrierInit(&sh.k_full[i], 1), BarrierInit(&sh.k_empty[i], 4 * Z::kConsumers);
      BarrierInit(&sh.v_full[i], 1), BarrierInit(&sh.v_empty[i], 4 * Z::kConsumers);
    }
    FenceBarrierInit();
    PrefetchMap(&q), PrefetchMap(&k), PrefetchMap(&v), PrefetchMap(&o);
  }
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 0) {
    GiveRegisters<Z::kFetchRegisters>();
    if (threadIdx.x == 0) Fetch<Z>(a, sh, q, k, v);
  } else {
    TakeRegisters<Z::kOwnRegisters>();
    Consumer<Z>{a, sh, group - 1, a.scale * kLog2E}.Run(o);
  }
#endif
}

// Measured on an H100, S 1024 to 16,384: larger groups balance causal tiles better, where there are many tiles of keys.
int64_t CacheBytes(const AttentionCall& c) { return (c.mask == AttentionMask::kCausal && c.d == 128 ? 32 : 8) << 20; }

template <typename Z>
absl::Status LaunchForward(const AttentionCall& c, int* counter, cudaStream_t stream) {
  ASSIGN_OR_RETURN(const CUtensorMap q, HeadsMap(c.q, c.b, c.s, c.hq, c.d, c.q_row, Z::kM));
  ASSIGN_OR_RETURN(const CUtensorMap k, HeadsMap(c.k, c.b, c.t, c.hk, c.d, c.kv_row, Z::kN));
  ASSIGN_OR_RETURN(const CUtensorMap v, HeadsMap(c.v, c.b, c.t, c.hk, c.d, c.kv_row, Z::kN));
  ASSIGN_OR_RETURN(const CUtensorMap o, HeadsMap(c.o, c.b, c.s, c.hq, c.d, c.hq * c.d, 64));
  ASSIGN_OR_RETURN(const int processors, Processors());
  const TileOrder order = OrderOf((c.s + Z::kM - 1) / Z::kM, c.b * c.hq, c.group, c.t * c.d * 4, CacheBytes(c));
  const ForwardArgs args{order,
                         static_cast<int>(c.hq),
                         static_cast<int>(c.group),
                         static_cast<int>(c.s),
                         static_cast<int>(c.t),
                         c.mask == AttentionMask::kCausal,
                         static_cast<float>(1 / std::sqrt(static_cast<double>(c.d))),
                         c.lse,
                         counter};
  constexpr int kBytes = sizeof(typename Z::Shared) + 1024;
  RETURN_IF_ERROR(CudaStatus(cudaMemsetAsync(counter, 0, sizeof(int), stream), "attention"));
  RETURN_IF_ERROR(
      CudaStatus(cudaFuncSetAttribute(Forward<Z>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "attention"));
  const int blocks = std::min(order.tiles * order.heads, processors);
  Forward<Z><<<blocks, Z::kThreads, kBytes, stream>>>(args, q, k, v, o);
  return Launched("attention on wgmma");
}

}  // namespace
}  // namespace sm90

int64_t Sm90AttentionForwardWorkspace(const AttentionCall&) { return 256; }

absl::Status Sm90AttentionForward(const AttentionCall& c, void* workspace, cudaStream_t stream) {
  int* const counter = static_cast<int*>(workspace);
  if (c.d == 64) return sm90::LaunchForward<sm90::ForwardShape<64, 2, 128, 2>>(c, counter, stream);
  return sm90::LaunchForward<sm90::ForwardShape<128, 2, 128, 2>>(c, counter, stream);
}

}  // namespace strata
