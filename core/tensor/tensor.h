#pragma once
// Dtypes, shapes, and what a kernel sees of a tensor. Everything here is trivially copyable and free of Abseil, so that
// kernels, plans and .cu files take it by value.

#include <cstdint>
#include <initializer_list>
#include <string>

namespace strata {

// kLow16: the lower half of a float32 whose upper half is another tensor's bf16 (JoinHalves).
enum class DType : uint8_t { kF64, kF32, kBF16, kI64, kI32, kU8, kLow16 };
inline constexpr DType kDTypes[] = {DType::kF64, DType::kF32, DType::kBF16, DType::kI64,
                                    DType::kI32, DType::kU8,  DType::kLow16};
constexpr int64_t SizeOf(DType t) {
  constexpr int64_t kSize[] = {8, 4, 2, 8, 4, 1, 2};
  return kSize[static_cast<int>(t)];
}
constexpr bool IsFloating(DType t) { return t <= DType::kBF16; }
const char* Name(DType t);  // "f64", "f32", "bf16", "i64", "i32", "u8", "low16"

// What sums of values of dtype t are kept in: f64 for f64, else f32.
constexpr DType AccumulatorOf(DType t) { return t == DType::kF64 ? DType::kF64 : DType::kF32; }

inline constexpr int kMaxRank = 6;
struct Shape {
  int64_t dim[kMaxRank] = {};
  int rank = 0;
  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<int64_t> d) {
    for (int64_t x : d) dim[rank++] = x;
  }
  constexpr int64_t operator[](int i) const { return dim[i]; }
  constexpr int64_t& operator[](int i) { return dim[i]; }
  constexpr int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dim[i];
    return n;
  }
  constexpr int64_t back() const { return dim[rank - 1]; }
  bool operator==(const Shape&) const = default;
};
Shape RowMajorStrides(const Shape& shape);
std::string ToString(const Shape& shape);  // "[4, 8, 16]"

// Kernels read sizes from here, never from an op's attributes: an op cannot tell a shard from a whole tensor.
// (So a reshape says "split dim 2 by 64" or "merge dims 2, 3", never a target shape.)
struct TensorRef {
  void* data = nullptr;  // element 0; 256-byte aligned at the start of a buffer
  DType dtype = DType::kF32;
  Shape shape, stride;   // local extent; stride in elements
  Shape origin, global;  // global index of local element 0, and global extent: vocabulary shards

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  int64_t bytes() const { return shape.elements() * SizeOf(dtype); }  // of a contiguous tensor
};
// A contiguous, unsharded tensor at `data`.
TensorRef Contiguous(void* data, DType dtype, const Shape& shape);

// bfloat16 storage: the upper half of a float32. Conversion rounds to nearest even; NaN stays NaN.
struct BF16 {
  uint16_t bits = 0;
  BF16() = default;
  explicit BF16(float f) {
    const uint32_t u = __builtin_bit_cast(uint32_t, f);
    bits =
        static_cast<uint16_t>((u & 0x7fffffff) > 0x7f800000 ? (u >> 16) | 0x40 : (u + 0x7fff + ((u >> 16) & 1)) >> 16);
  }
  explicit operator float() const { return __builtin_bit_cast(float, uint32_t{bits} << 16); }
};

// A float32 in two halves: a bf16 rounded half up (away from zero), and the lower 16 bits. Where these are 2^15 or more the bf16
// was rounded up, so the two are the float32 again, exactly. Not for NaN.
struct Halves {
  BF16 high;
  uint16_t low = 0;
};
inline Halves SplitHalves(float f) {
  const uint32_t u = __builtin_bit_cast(uint32_t, f);
  Halves h;
  h.high.bits = static_cast<uint16_t>((u + 0x8000) >> 16);
  h.low = static_cast<uint16_t>(u);
  return h;
}
inline float JoinHalves(BF16 high, uint16_t low) {
  return __builtin_bit_cast(float, (uint32_t{high.bits} - (low >> 15)) << 16 | low);
}

}  // namespace strata
