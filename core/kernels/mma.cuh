#pragma once
// A warp's bf16 matrix products on tensor cores, and the copies that feed them (sm_80 on). Source: the PTX ISA, "mma.m16n8k16",
// "ldmatrix", "cp.async". Of lane l, g = l / 4 and t = l % 4:
//   A [16, 16]: a[0] is (g, 2t) and (g, 2t + 1); a[1] 8 rows on; a[2] 8 columns on; a[3] both
//   B [16, 8]:  b0 is (2t, g) and (2t + 1, g); b1 8 rows on
//   C [16, 8]:  c[0], c[1] are (g, 2t) and (g, 2t + 1); c[2], c[3] 8 rows on
// So two neighbouring C are, rounded, an A.

#include <cuda_bf16.h>

#include <cstdint>

namespace strata {

// c += a b, sums in float32.
__device__ __forceinline__ void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Four 8 x 8 matrices from shared memory: lane l gives the address of row l % 8 of matrix l / 8, 16 bytes. r[i] is elements
// (g, 2t) and (g, 2t + 1) of matrix i, or of its transpose.
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], const __nv_bfloat16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
__device__ __forceinline__ void LoadTransposed(uint32_t (&r)[4], const __nv_bfloat16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}

// 16 bytes into shared memory, zeros where `inside` is false; there after WaitForCopies() and a barrier.
__device__ __forceinline__ void CopyAsync(__nv_bfloat16* to, const __nv_bfloat16* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(to)), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void WaitForCopies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// x in the lower half.
__device__ __forceinline__ uint32_t PackBF16(float x, float y) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&v);
}

}  // namespace strata
