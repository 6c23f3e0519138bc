#include "core/tensor/tensor.h"

namespace strata {

const char* Name(DType t) {
  constexpr const char* kName[] = {"f64", "f32", "bf16", "i64", "i32", "u8", "low16"};
  return kName[static_cast<int>(t)];
}

Shape RowMajorStrides(const Shape& shape) {
  Shape s = shape;
  int64_t n = 1;
  for (int i = shape.rank - 1; i >= 0; --i) {
    s[i] = n;
    n *= shape[i];
  }
  return s;
}

std::string ToString(const Shape& shape) {
  std::string s = "[";
  for (int i = 0; i < shape.rank; ++i) s += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

TensorRef Contiguous(void* data, DType dtype, const Shape& shape) {
  TensorRef t{data, dtype, shape, RowMajorStrides(shape), {}, shape};
  t.origin.rank = shape.rank;
  return t;
}

}  // namespace strata
