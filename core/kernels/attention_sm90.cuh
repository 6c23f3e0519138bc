#pragma once
// What attention on Hopper's warpgroup instructions (sm_90a) is made of: barriers in shared memory, bulk copies by tensor maps,
// wgmma on 128-byte swizzled tiles. Names and fields are PTX's (ISA 8.0: "Asynchronous warpgroup level matrix instructions",
// "Matrix descriptor", "cp.async.bulk.tensor"). A tile in shared memory is made of boxes of 64 bf16 columns: rows of 128 bytes, one
// after the other, 16-byte chunk c of row r at c ^ (r % 8); a box begins at a multiple of 1024 bytes.

#include <cuda.h>
#include <cuda_bf16.h>
#include <stdint.h>

#include "core/kernels/attention_sm90_host.h"

namespace strata::sm90 {

inline constexpr int kBoxColumns = 64, kBoxRowBytes = 128;

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Barriers in shared memory ("mbarrier").
__device__ __forceinline__ void InitBarrier(uint64_t& bar, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(&bar)), "r"(arrivals) : "memory");
}
// After InitBarrier, before copies complete on the barriers.
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void Arrive(uint64_t& bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(&bar)) : "memory");
}
__device__ __forceinline__ void ArriveExpecting(uint64_t& bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(&bar)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ bool TryWait(uint64_t& bar, uint32_t parity) {
  uint32_t done;
  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(done)
               : "r"(SharedAddress(&bar)), "r"(parity)
               : "memory");
  return done != 0;
}
// Until the phase of this parity has completed; true at once for parity 1 of a fresh barrier.
__device__ __forceinline__ void Wait(uint64_t& bar, uint32_t parity) {
#ifdef STRATA_SM90_TRAP  // a hang becomes an error
  for (int i = 0; !TryWait(bar, parity); ++i) {
    if (i == 1 << 24) __trap();
  }
#else
  while (!TryWait(bar, parity)) {
  }
#endif
}

// The tile of this number in the order: its head, and how many of the head's tiles are heavier.
struct Place {
  int head, tile;
};
__device__ __forceinline__ Place PlaceOf(const TileOrder& order, int number) {
  const int per_group = order.group * order.tiles, group = number / per_group, rest = number % per_group;
  const int first = group * order.group, heads = min(order.group, order.heads - first);
  return {first + rest % heads, rest / heads};
}

// A place in a ring of kStages slots, and the parity of its round.
template <int kStages>
struct Ring {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Next() {
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
};

// Barriers of some warps of a block: `threads` arrive or wait.
__device__ __forceinline__ void SyncNamed(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void ArriveNamed(int id, int threads) {
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

// Bulk copies. Boxes are [1, rows, 1, 64] of a map of [batch, row, head, column].
__device__ __forceinline__ void PrefetchMap(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ __forceinline__ void LoadBox(void* to, const CUtensorMap& map, uint64_t& bar, int column, int head, int row,
                                        int batch) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(&bar)), "r"(column), "r"(head), "r"(row), "r"(batch)
      : "memory");
}
__device__ __forceinline__ void StoreBox(const void* from, const CUtensorMap& map, int column, int head, int row,
                                         int batch) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%1, {%2, %3, %4, %5}], [%0];" ::"r"(
                   SharedAddress(from)),
               "l"(&map), "r"(column), "r"(head), "r"(row), "r"(batch)
               : "memory");
}
// `bytes`, a multiple of 16.
__device__ __forceinline__ void LoadBytes(void* to, const void* from, int bytes, uint64_t& bar) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   SharedAddress(to)),
               "l"(from), "r"(bytes), "r"(SharedAddress(&bar))
               : "memory");
}
// to[i] += from[i], float32, `bytes` of them, a multiple of 16.
__device__ __forceinline__ void AddBytes(float* to, const float* from, int bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
               "r"(SharedAddress(from)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CommitStores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until shared memory that this thread's stores read may be written again.
__device__ __forceinline__ void WaitStoresRead() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
// Between writes to shared memory and its use by bulk copies and wgmma.
__device__ __forceinline__ void FenceAsync() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Where chunk `chunk` of 16 bytes of row `row` of a box is, in bytes.
__device__ __forceinline__ uint32_t ChunkAt(int row, int chunk) {
  return static_cast<uint32_t>(row * kBoxRowBytes + ((chunk ^ (row & 7)) << 4));
}
// Four 8 x 8 matrices of bf16: lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void StoreMatrices(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b),
               "r"(c), "r"(d)
               : "memory");
}
__device__ __forceinline__ uint32_t Pack(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ void AddToGlobal(float* to, float a, float b, float c, float d) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(a), "f"(b), "f"(c), "f"(d)
               : "memory");
}

// Descriptors of operands. Along K (kKMajor: the columns of boxes are K; kMnMajor: the rows are) 16 elements are kStepK further.
enum Major { kKMajor = 0, kMnMajor = 1 };
// `box_bytes`: from 64 columns to the next 64, which only kMnMajor operands wider than 64 need.
__device__ __forceinline__ uint64_t Descriptor(const void* box, int box_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kEightRows = uint64_t{8 * kBoxRowBytes >> 4} << 32;
  return kSwizzle128 | kEightRows | static_cast<uint64_t>(box_bytes >> 4) << 16 | ((SharedAddress(box) & 0x3ffff) >> 4);
}
// Where 16 elements of K, number k, of an operand begin, relative to its descriptor.
template <Major kMajor>
__device__ __forceinline__ uint64_t StepK(int k, int box_bytes) {
  return kMajor == kMnMajor ? static_cast<uint64_t>(k * 16 * kBoxRowBytes >> 4)
                            : static_cast<uint64_t>((k / 4 * box_bytes + k % 4 * 32) >> 4);
}

// Between register accesses and wgmmas on the same registers.
__device__ __forceinline__ void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving accesses of registers over this point.
template <int kN>
__device__ __forceinline__ void Pin(float (&x)[kN]) {
#pragma unroll
  for (int i = 0; i < kN; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
// What was in the registers is of no use: the next wgmma does not accumulate.
template <int kN>
__device__ __forceinline__ void Forget(float (&x)[kN]) {
#pragma unroll
  for (int i = 0; i < kN; ++i) asm volatile("" : "=f"(x[i])::"memory");
}
template <int kN>
__device__ __forceinline__ void Pin(uint32_t (&x)[kN]) {
#pragma unroll
  for (int i = 0; i < kN; ++i) asm volatile("" : "+r"(x[i])::"memory");
}

#define STRATA_F4(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])
#define STRATA_F16(x, i) STRATA_F4(x, i), STRATA_F4(x, i + 4), STRATA_F4(x, i + 8), STRATA_F4(x, i + 12)
#define STRATA_F32(x) STRATA_F16(x, 0), STRATA_F16(x, 16)
#define STRATA_F64(x) STRATA_F32(x), STRATA_F16(x, 32), STRATA_F16(x, 48)

// d[64, 2 kN] (+)= a[64, 16] b[16, 2 kN], both in shared memory.
template <Major kA, Major kB, int kN>
__device__ __forceinline__ void Wgmma(float (&d)[kN], uint64_t a, uint64_t b, int accumulate) {
  static_assert(kN == 16 || kN == 32 || kN == 64);
  if constexpr (kN == 16) {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %18, 0; wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, "
        "%1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, p, 1, 1, %19, %20; }"
        : STRATA_F16(d, 0)
        : "l"(a), "l"(b), "r"(accumulate), "n"(int(kA)), "n"(int(kB)));
  } else if constexpr (kN == 32) {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, "
        "%1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
        "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, p, 1, 1, %35, %36; }"
        : STRATA_F32(d)
        : "l"(a), "l"(b), "r"(accumulate), "n"(int(kA)), "n"(int(kB)));
  } else {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, "
        "%1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
        "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
        "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
        "%62, %63}, %64, %65, p, 1, 1, %67, %68; }"
        : STRATA_F64(d)
        : "l"(a), "l"(b), "r"(accumulate), "n"(int(kA)), "n"(int(kB)));
  }
}

// The same with a in registers: the layout of an accumulator [64, 16] packed in pairs.
template <Major kB, int kN>
__device__ __forceinline__ void WgmmaRegisters(float (&d)[kN], const uint32_t* a, uint64_t b, int accumulate) {
  static_assert(kN == 16 || kN == 32 || kN == 64);
  if constexpr (kN == 16) {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %21, 0; wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, "
        "%1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, {%16, %17, %18, %19}, %20, p, 1, "
        "1, %22; }"
        : STRATA_F16(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(int(kB)));
  } else if constexpr (kN == 32) {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %37, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, "
        "%1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
        "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, p, 1, 1, %38; }"
        : STRATA_F32(d)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(int(kB)));
  } else {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %69, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, "
        "%1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
        "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
        "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
        "%62, %63}, {%64, %65, %66, %67}, %68, p, 1, 1, %70; }"
        : STRATA_F64(d)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(int(kB)));
  }
}

#undef STRATA_F4
#undef STRATA_F16
#undef STRATA_F32
#undef STRATA_F64

}  // namespace strata::sm90
