#pragma once
// Hopper's own instructions (sm_90a) that kernels of ours use: barriers that count arrivals and bytes (mbarrier), the bulk tensor copy
// engine (TMA), and what goes around the matrix products of a warpgroup (wgmma; they are in sm90_wgmma.cuh). Source: the PTX ISA, "mbarrier", "cp.async.bulk.tensor",
// "wgmma.mma_async". A shared-memory tile has rows of 128 bytes whose 16-byte units are permuted by 128-byte swizzle: unit u of row r
// lies at u ^ (r % 8). Tiles begin at multiples of 1024 bytes.

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

namespace strata::sm90 {

__device__ __forceinline__ uint32_t Shared(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// ---- Barriers. A phase completes after `count` arrivals and all bytes that were expected; its parity alternates, from 0.
__device__ __forceinline__ void BarrierInit(uint64_t* barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(Shared(barrier)), "r"(count) : "memory");
}
// After all inits, before other threads, the cluster or TMA use them.
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void ArriveExpecting(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(Shared(barrier)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(Shared(barrier)) : "memory");
}
// At the same barrier of another block of the cluster.
__device__ __forceinline__ void ArriveAt(uint64_t* barrier, uint32_t block) {
  asm volatile(
      "{ .reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote]; }" ::"r"(Shared(barrier)),
      "r"(block)
      : "memory");
}
__device__ __forceinline__ bool TryWait(uint64_t* barrier, uint32_t parity) {
  uint32_t done;
  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(done)
               : "r"(Shared(barrier)), "r"(parity)
               : "memory");
  return done != 0;
}
// Until the phase of this parity has completed; over at once for parity 1 of a fresh barrier.
__device__ __forceinline__ void Wait(uint64_t* barrier, uint32_t parity) {
#ifdef STRATA_SM90_TRAP  // a hang becomes an error
  for (int i = 0; !TryWait(barrier, parity); ++i) {
    if (i == 1 << 24) __trap();
  }
#else
  while (!TryWait(barrier, parity)) {
  }
#endif
}

// A place in a ring of kStages slots, and the parity of its round. Who fills slots waits for the other parity: all begin empty.
template <int kStages>
struct Ring {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Next() {
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
  __device__ __forceinline__ int Before() const { return slot == 0 ? kStages - 1 : slot - 1; }  // the slot
};

__device__ __forceinline__ uint32_t ClusterRank() {
  uint32_t r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
__device__ __forceinline__ void ClusterSync() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
// Of the threads that name it: barrier `id` (1 to 15) of `threads` of the block.
__device__ __forceinline__ void NamedBarrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Counts there too, and goes on.
__device__ __forceinline__ void NamedArrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <int kRegisters>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- The copy engine. Coordinates are elements, innermost dim first; outside of the tensor it reads zeros and writes nothing.
__device__ __forceinline__ void PrefetchMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(map)) : "memory");
}
__device__ __forceinline__ void LoadTile(void* to, const CUtensorMap* map, uint64_t* barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
          "r"(Shared(to)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(Shared(barrier)), "r"(x), "r"(y)
      : "memory");
}
// Into the same place of every block of the cluster whose bit is set, and its bytes to the same barrier there.
__device__ __forceinline__ void LoadTileToAll(void* to, const CUtensorMap* map, uint64_t* barrier, int x, int y,
                                              uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%3, %4}], "
      "[%2], %5;" ::"r"(Shared(to)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(Shared(barrier)), "r"(x), "r"(y), "h"(blocks)
      : "memory");
}
__device__ __forceinline__ void StoreTile(const CUtensorMap* map, const void* from, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(
                   reinterpret_cast<uint64_t>(map)),
               "r"(Shared(from)), "r"(x), "r"(y)
               : "memory");
}
// `bytes`, a multiple of 16, between aligned places.
__device__ __forceinline__ void LoadBytes(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(Shared(to)),
      "l"(from), "r"(bytes), "r"(Shared(barrier))
      : "memory");
}
__device__ __forceinline__ void StoreBytes(void* to, const void* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(Shared(from)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CommitStores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until at most kLeft groups of this thread's stores still read shared memory.
template <int kLeft>
__device__ __forceinline__ void WaitStoresRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kLeft) : "memory");
}
template <int kLeft>
__device__ __forceinline__ void WaitStores() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kLeft) : "memory");
}
// Ordinary stores to shared memory before, the copy engine or wgmma after.
__device__ __forceinline__ void FenceToAsync() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ float4 LoadShared(uint32_t shared) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(shared)
               : "memory");
  return v;
}

// Two floats, rounded, the first in the lower half; and back.
__device__ __forceinline__ uint32_t Pack(float x, float y) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&v);
}
__device__ __forceinline__ float2 Unpack(uint32_t v) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v));
}

// Four 8 x 8 matrices of 16-bit elements to shared memory, in the layout of an accumulator's fragments: lane l gives the address of
// row l % 8 of matrix l / 8.
__device__ __forceinline__ void StoreMatrices(uint32_t row, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(a), "r"(b), "r"(c),
               "r"(d)
               : "memory");
}

// And back.
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// ---- Matrix products. kK: a row of the tile is 64 elements along the summed dim; kMN: along the other, and rows along the summed.
enum class Major { kK = 0, kMN = 1 };

__device__ __forceinline__ uint64_t Descriptor(uint32_t shared, uint32_t leading_bytes) {
  return uint64_t{(shared & 0x3FFFF) >> 4} | uint64_t{leading_bytes >> 4} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}
// Of a step of 16 along the summed dim, in a descriptor's units of 16 bytes.
constexpr uint64_t StepOf(Major major) { return major == Major::kK ? 2 : 128; }

__device__ __forceinline__ void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Sums that a product in flight writes are not to be read before this, after the wait.
template <int kCount>
__device__ __forceinline__ void FenceRegisters(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int kLeft>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}

}  // namespace strata::sm90
