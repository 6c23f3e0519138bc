#pragma once
// Block quantisation, for collectives that move fewer bytes (ZeRO++, Wang et al. 2023, arXiv:2306.10209: qwZ and qgZ).
//
// A flat tensor is cut into blocks of 256 elements. A block x with amax = max |x| has scale = amax / m, m = 127 for int8 and 7
// for int4, and integers q = round(x / scale). It is one record of bytes: the integers (int4: two a byte, the lower half
// first, plus 8), then the float32 scale: 260 bytes for int8, 132 for int4. Records follow one another, so that a collective
// cuts a quantised tensor where it would cut the elements.
// Error: an element comes back within scale / 2 = amax / (2 m) of what it was, and the rounding of the scale and of the result
// (a few 2^-24 of amax in float32 and float64, 2^-9 of the result in bf16). A block that is not finite comes back as NaN.

#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata {

inline constexpr int64_t kQuantBlock = 256;  // elements
enum class QuantBits : uint8_t { k8 = 8, k4 = 4 };
constexpr int64_t RecordBytes(QuantBits bits) { return kQuantBlock * static_cast<int64_t>(bits) / 8 + 4; }
constexpr int64_t QuantMax(QuantBits bits) { return bits == QuantBits::k8 ? 127 : 7; }
// Of so many elements, a multiple of kQuantBlock.
constexpr int64_t QuantizedBytes(int64_t elements, QuantBits bits) {
  return elements / kQuantBlock * RecordBytes(bits);
}

// How a quantised tensor is to be sent. rows 0: [bytes], for a gather. rows n: [n, bytes], of which a rank holds one row
// (Shard(0) on the axes of an all-to-all): chunk j of its row goes to rank j.
struct QuantSpec {
  QuantBits bits = QuantBits::k8;
  int64_t rows = 0;
};

// u8 of the shape above from a flat tensor of f64, f32 or bf16. The layouts of results are the caller's to set.
Value Quantize(GraphBuilder& g, Value flat, const QuantSpec& spec, SourceLoc loc = SourceLoc::Here());
// A flat tensor from [bytes].
Value Dequantize(GraphBuilder& g, Value bytes, QuantBits bits, DType dtype, SourceLoc loc = SourceLoc::Here());
// A flat tensor from [n, bytes]: the sum of the local rows, in their order, in `dtype`, f64 or f32.
Value DequantizeSum(GraphBuilder& g, Value rows, QuantBits bits, DType dtype, SourceLoc loc = SourceLoc::Here());

// For the kernels.
const QuantSpec& QuantSpecOf(const Op& quantize);
QuantBits QuantBitsOf(const Op& dequantize);

}  // namespace strata
