#include <cmath>

#include "core/base/check.h"
#include "core/base/philox.h"
#include "tests/testing/interpreter.h"

namespace strata::testing {

Tensor Tensor::Zeros(DType dtype, Shape shape) {
  return {dtype, shape, std::vector<std::byte>(shape.elements() * SizeOf(dtype))};
}

Tensor Tensor::Of(Shape shape, const std::vector<double>& values, DType dtype) {
  STRATA_CHECK(static_cast<int64_t>(values.size()) == shape.elements());
  Tensor t = Zeros(dtype, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.set(i, values[i]);
  return t;
}

Tensor Tensor::Random(DType dtype, Shape shape, uint64_t seed, double scale) {
  Tensor t = Zeros(dtype, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.set(i, scale * PhiloxNormal(Philox(seed, 1, i)));
  return t;
}

Tensor Tensor::RandomInts(Shape shape, int64_t low, int64_t high, uint64_t seed) {
  Tensor t = Zeros(DType::kI32, shape);
  for (int64_t i = 0; i < t.size(); ++i) t.set(i, low + Philox(seed, 2, i)[0] % (high - low));
  return t;
}

double Tensor::at(int64_t i) const {
  const auto read = [&]<typename T>() { return reinterpret_cast<const T*>(data.data())[i]; };
  switch (dtype) {
    case DType::kF64: return read.operator()<double>();
    case DType::kF32: return read.operator()<float>();
    case DType::kBF16: return static_cast<float>(read.operator()<BF16>());
    case DType::kI64: return static_cast<double>(read.operator()<int64_t>());
    case DType::kI32: return read.operator()<int32_t>();
    case DType::kU8: return read.operator()<uint8_t>();
    case DType::kLow16: return read.operator()<uint16_t>();
  }
  return NAN;
}

void Tensor::set(int64_t i, double v) {
  const auto write = [&]<typename T>(T value) { reinterpret_cast<T*>(data.data())[i] = value; };
  switch (dtype) {
    case DType::kF64: return write(v);
    case DType::kF32: return write(static_cast<float>(v));
    case DType::kBF16: return write(BF16(static_cast<float>(v)));
    case DType::kI64: return write(static_cast<int64_t>(v));
    case DType::kI32: return write(static_cast<int32_t>(v));
    case DType::kU8: return write(static_cast<uint8_t>(v));
    case DType::kLow16: return write(static_cast<uint16_t>(v));
  }
}

TensorRef Tensor::ref() { return Contiguous(data.data(), dtype, shape); }

double MaxAbsDiff(const Tensor& a, const Tensor& b) {
  if (a.shape != b.shape) return INFINITY;
  double worst = 0;
  for (int64_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(a.at(i) - b.at(i));
    if (std::isnan(d)) return INFINITY;
    worst = std::max(worst, d);
  }
  return worst;
}

double MaxAbs(const Tensor& a) { return MaxAbsDiff(a, Tensor::Zeros(a.dtype, a.shape)); }

}  // namespace strata::testing
