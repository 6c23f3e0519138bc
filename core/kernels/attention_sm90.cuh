#pragma once
// What attention on Hopper is made of beside core/kernels/sm90.cuh: rings of barriers, boxes of a head's rows, and
// descriptors and registers of matrix products. A tile in shared memory is made of boxes of 64 bf16 columns: rows of 128 bytes, one
// after the other, swizzled; a box begins at a multiple of 1024 bytes.

#include "core/kernels/attention_sm90_host.h"
#include "core/kernels/sm90_wgmma.cuh"

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#pragma nv_diag_suppress 177  // on other GPUs kernels are empty, and what they are made of is not used
#endif

namespace strata::sm90 {

inline constexpr int kBoxColumns = 64, kBoxRowBytes = 128;
inline constexpr float kLog2E = 1.4426950408889634f;

// Bulk copies. Boxes are [1, rows, 1, 64] of a map of [batch, row, head, column].
__device__ __forceinline__ void LoadBox(void* to, const CUtensorMap& map, uint64_t* bar, int column, int head, int row,
                                        int batch) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(Shared(to)),
      "l"(&map), "r"(Shared(bar)), "r"(column), "r"(head), "r"(row), "r"(batch)
      : "memory");
}
// Into the same place of every block of the cluster whose bit is set, and its bytes to the same barrier there.
__device__ __forceinline__ void LoadBoxToAll(void* to, const CUtensorMap& map, uint64_t* bar, int column, int head,
                                             int row, int batch, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%3, %4, %5, %6}], [%2], %7;" ::"r"(Shared(to)),
      "l"(&map), "r"(Shared(bar)), "r"(column), "r"(head), "r"(row), "r"(batch), "h"(blocks)
      : "memory");
}
// kRows rows of a head, kBoxes x 64 columns, box after box.
template <int kRows, int kBoxes>
__device__ __forceinline__ void LoadBoxes(uint16_t* to, const CUtensorMap& map, uint64_t* bar, int head, int row,
                                          int batch) {
#pragma unroll
  for (int x = 0; x < kBoxes; ++x) {
    LoadBox(to + x * kRows * kBoxColumns, map, bar, x * kBoxColumns, head, row, batch);
  }
}
__device__ __forceinline__ void StoreBox(const void* from, const CUtensorMap& map, int column, int head, int row,
                                         int batch) {
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%1, {%2, %3, %4, %5}], [%0];" ::"r"(Shared(from)),
      "l"(&map), "r"(column), "r"(head), "r"(row), "r"(batch)
      : "memory");
}
// To another block of the cluster, and the bytes to a barrier there: `to` and `bar` are this block's names of both.
__device__ __forceinline__ void SendBytes(void* to, const void* from, uint32_t bytes, uint64_t* bar, uint32_t block) {
  asm volatile(
      "{ .reg .b32 there, bar;\n"
      "mapa.shared::cluster.u32 there, %0, %4;\n"
      "mapa.shared::cluster.u32 bar, %3, %4;\n"
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [there], [%1], %2, [bar]; }" ::"r"(
          Shared(to)),
      "r"(Shared(from)), "r"(bytes), "r"(Shared(bar)), "r"(block)
      : "memory");
}
// Where chunk `chunk` of 16 bytes of row `row` of a box is, in bytes.
__device__ __forceinline__ uint32_t ChunkAt(int row, int chunk) {
  return static_cast<uint32_t>(row * kBoxRowBytes + ((chunk ^ (row & 7)) << 4));
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

// Where 16 elements of K, number k, of an operand begin, relative to its descriptor.
template <Major kMajor>
__device__ __forceinline__ uint64_t StepK(int k, int box_bytes) {
  return kMajor == Major::kMN ? static_cast<uint64_t>(k * 16 * kBoxRowBytes >> 4)
                              : static_cast<uint64_t>((k / 4 * box_bytes + k % 4 * 32) >> 4);
}

// x, of which the compiler knows nothing: what follows from it is computed where it is used, not kept in registers.
__device__ __forceinline__ int Opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}
// What was in the registers is of no use: the next wgmma does not accumulate.
template <int kN>
__device__ __forceinline__ void Forget(float (&x)[kN]) {
#pragma unroll
  for (int i = 0; i < kN; ++i) asm volatile("" : "=f"(x[i])::"memory");
}
template <int kN>
__device__ __forceinline__ void FenceRegisters(uint32_t (&x)[kN]) {
#pragma unroll
  for (int i = 0; i < kN; ++i) asm volatile("" : "+r"(x[i])::"memory");
}

}  // namespace strata::sm90
