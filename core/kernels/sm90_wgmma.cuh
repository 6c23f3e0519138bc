#pragma once
// Matrix products of a warpgroup on Hopper (wgmma): 64 rows by 32 to 256 columns of bf16 operands, float32 sums. Thread t of the warpgroup, of warp
// w = t / 32 and lane l: d[4 j + {0, 1}] is row 16 w + l / 4, columns 8 j + 2 (l % 4) + {0, 1}; d[4 j + {2, 3}] 8 rows on.

#include "core/kernels/sm90.cuh"

namespace strata::sm90 {

#define STRATA_F4(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])
#define STRATA_F16(x, i) STRATA_F4(x, i), STRATA_F4(x, i + 4), STRATA_F4(x, i + 8), STRATA_F4(x, i + 12)
#define STRATA_F32(x, i) STRATA_F16(x, i), STRATA_F16(x, i + 16)
#define STRATA_F64(x, i) STRATA_F32(x, i), STRATA_F32(x, i + 32)
#define STRATA_ALL(...) __VA_ARGS__
// Names of sums in the instruction.
#define STRATA_P0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define STRATA_P16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define STRATA_P32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define STRATA_P48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define STRATA_P64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define STRATA_P80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define STRATA_P96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define STRATA_P112 ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define STRATA_P_32 STRATA_P0 STRATA_P16
#define STRATA_P_64 STRATA_P_32 STRATA_P32 STRATA_P48
#define STRATA_P_96 STRATA_P_64 STRATA_P64 STRATA_P80
#define STRATA_P_128 STRATA_P_96 STRATA_P96 STRATA_P112

// d[64, 2 kN] (+)= a[64, 16] b[16, 2 kN], both in shared memory.
template <Major kA, Major kB, int kN>
__device__ __forceinline__ void Wgmma(float (&d)[kN], uint64_t a, uint64_t b, int accumulate) {
  static_assert(kN == 16 || kN == 32 || kN == 64 || kN == 96 || kN == 128);
#define STRATA_WGMMA(n, sums, names, from, to, when, tail)                                       \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, " when ", 0; wgmma.mma_async.sync.aligned.m64n" n \
               "k16.f32.bf16.bf16 {" names "}, " from ", " to ", p, 1, 1, " tail "; }"           \
               : sums                                                                            \
               : "l"(a), "l"(b), "r"(accumulate), "n"(static_cast<int>(kA)), "n"(static_cast<int>(kB)))
  if constexpr (kN == 16) {
    STRATA_WGMMA("32", STRATA_ALL(STRATA_F16(d, 0)), STRATA_P0, "%16", "%17", "%18", "%19, %20");
  } else if constexpr (kN == 32) {
    STRATA_WGMMA("64", STRATA_ALL(STRATA_F32(d, 0)), STRATA_P_32, "%32", "%33", "%34", "%35, %36");
  } else if constexpr (kN == 64) {
    STRATA_WGMMA("128", STRATA_ALL(STRATA_F64(d, 0)), STRATA_P_64, "%64", "%65", "%66", "%67, %68");
  } else if constexpr (kN == 96) {
    STRATA_WGMMA("192", STRATA_ALL(STRATA_F64(d, 0), STRATA_F32(d, 64)), STRATA_P_96, "%96", "%97", "%98", "%99, %100");
  } else {
    STRATA_WGMMA("256", STRATA_ALL(STRATA_F64(d, 0), STRATA_F64(d, 64)), STRATA_P_128, "%128", "%129", "%130",
                 "%131, %132");
  }
#undef STRATA_WGMMA
}

// The same with a in registers: the layout of an accumulator [64, 16] packed in pairs.
template <Major kB, int kN>
__device__ __forceinline__ void WgmmaRegisters(float (&d)[kN], const uint32_t* a, uint64_t b, int accumulate) {
  static_assert(kN == 16 || kN == 32 || kN == 64);
#define STRATA_WGMMA(n, sums, names, from, to, when, tail)                                       \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, " when ", 0; wgmma.mma_async.sync.aligned.m64n" n \
               "k16.f32.bf16.bf16 {" names "}, {" from "}, " to ", p, 1, 1, " tail "; }"         \
               : sums                                                                            \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(static_cast<int>(kB)))
  if constexpr (kN == 16) {
    STRATA_WGMMA("32", STRATA_ALL(STRATA_F16(d, 0)), STRATA_P0, "%16, %17, %18, %19", "%20", "%21", "%22");
  } else if constexpr (kN == 32) {
    STRATA_WGMMA("64", STRATA_ALL(STRATA_F32(d, 0)), STRATA_P_32, "%32, %33, %34, %35", "%36", "%37", "%38");
  } else {
    STRATA_WGMMA("128", STRATA_ALL(STRATA_F64(d, 0)), STRATA_P_64, "%64, %65, %66, %67", "%68", "%69", "%70");
  }
#undef STRATA_WGMMA
}

#undef STRATA_F4
#undef STRATA_F16
#undef STRATA_F32
#undef STRATA_F64
#undef STRATA_ALL
#undef STRATA_P0
#undef STRATA_P16
#undef STRATA_P32
#undef STRATA_P48
#undef STRATA_P64
#undef STRATA_P80
#undef STRATA_P96
#undef STRATA_P112
#undef STRATA_P_32
#undef STRATA_P_64
#undef STRATA_P_96
#undef STRATA_P_128

}  // namespace strata::sm90
