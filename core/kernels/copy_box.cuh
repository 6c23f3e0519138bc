#pragma once
// Copies of rows of bytes that lie at two strides, by the widest accesses that sizes and addresses allow.

#include "core/kernels/map.cuh"

namespace strata {

struct ByteBox {
  int64_t counts[2];       // rows (i, j)
  int64_t bytes;           // of a row
  int64_t from[2], to[2];  // row (i, j) begins at i stride[0] + j stride[1] bytes
};

template <typename Unit>
__global__ void __launch_bounds__(kMapThreads) CopyUnits(const Unit* from, Unit* to, ByteBox box) {  // all in units
  const int64_t i = blockIdx.x * int64_t{kMapThreads} + threadIdx.x;
  if (i >= box.counts[0] * box.counts[1] * box.bytes) return;
  const int64_t row = Quotient(i, box.bytes), column = i - row * box.bytes;
  const int64_t r0 = Quotient(row, box.counts[1]), r1 = row - r0 * box.counts[1];
  to[r0 * box.to[0] + r1 * box.to[1] + column] = from[r0 * box.from[0] + r1 * box.from[1] + column];
}

template <typename Unit>
bool CopyBoxBy(cudaStream_t stream, const void* from, void* to, ByteBox box) {
  constexpr int64_t kSize = sizeof(Unit);
  const uintptr_t bits = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) |
                         static_cast<uintptr_t>(box.bytes | box.from[0] | box.from[1] | box.to[0] | box.to[1]);
  if (bits % kSize != 0) return false;
  for (int64_t* x : {&box.bytes, &box.from[0], &box.from[1], &box.to[0], &box.to[1]}) *x /= kSize;
  const int64_t blocks = Ceil(box.counts[0] * box.counts[1] * box.bytes, kMapThreads);
  if (blocks > 0) {
    CopyUnits<<<static_cast<unsigned>(blocks), kMapThreads, 0, stream>>>(static_cast<const Unit*>(from),
                                                                         static_cast<Unit*>(to), box);
  }
  return true;
}

inline void CopyBox(cudaStream_t stream, const void* from, void* to, const ByteBox& box) {
  if (CopyBoxBy<uint4>(stream, from, to, box) || CopyBoxBy<uint32_t>(stream, from, to, box) ||
      CopyBoxBy<uint16_t>(stream, from, to, box)) {
    return;
  }
  CopyBoxBy<uint8_t>(stream, from, to, box);
}

}  // namespace strata
