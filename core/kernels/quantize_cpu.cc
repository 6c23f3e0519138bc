// quantize, dequantize, dequantize_sum: blocks and records of core/ops/quantize.h, one after the other. A record is 4-byte
// aligned; its scale is float32.

#include "core/ops/quantize.h"

#include <cmath>
#include <cstring>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"

namespace strata {
namespace {

constexpr int64_t kBlocksOfTile = 64;

template <typename T>
void QuantizeBlock(const T* x, QuantBits bits, uint8_t* record) {
  float amax = 0;
  bool finite = true;
  for (int64_t i = 0; i < kQuantBlock; ++i) {
    const float v = std::fabs(static_cast<float>(x[i]));
    finite &= std::isfinite(v);
    amax = v > amax ? v : amax;
  }
  const float scale = finite ? amax / static_cast<float>(QuantMax(bits)) : NAN;
  const float inverse = finite && scale > 0 ? 1.0f / scale : 0.0f;
  const auto limit = static_cast<float>(QuantMax(bits));
  const auto round = [&](int64_t i) {
    if (inverse == 0 || !std::isfinite(inverse)) return 0;
    const float q = std::nearbyint(static_cast<float>(x[i]) * inverse);
    return static_cast<int>(std::fmin(std::fmax(q, -limit), limit));
  };
  const int64_t payload = RecordBytes(bits) - 4;
  if (bits == QuantBits::k8) {
    for (int64_t i = 0; i < kQuantBlock; ++i) record[i] = static_cast<uint8_t>(static_cast<int8_t>(round(i)));
  } else {
    for (int64_t i = 0; i < payload; ++i) {
      record[i] = static_cast<uint8_t>((round(2 * i) + 8) | (round(2 * i + 1) + 8) << 4);
    }
  }
  std::memcpy(record + payload, &scale, sizeof(scale));
}

// add(i, element i of the block)
template <typename Fn>
void ForDequantized(const uint8_t* record, QuantBits bits, const Fn& add) {
  const int64_t payload = RecordBytes(bits) - 4;
  float scale = 0;
  std::memcpy(&scale, record + payload, sizeof(scale));
  if (bits == QuantBits::k8) {
    for (int64_t i = 0; i < kQuantBlock; ++i) add(i, static_cast<float>(static_cast<int8_t>(record[i])) * scale);
  } else {
    for (int64_t i = 0; i < payload; ++i) {
      add(2 * i, static_cast<float>((record[i] & 15) - 8) * scale);
      add(2 * i + 1, static_cast<float>((record[i] >> 4) - 8) * scale);
    }
  }
}

template <typename T>
absl::Status RunQuantize(const KernelArgs& a) {
  const QuantBits bits = QuantSpecOf(a.op).bits;
  ForTiles(a.pool, a.in[0].shape.elements() / kQuantBlock, kBlocksOfTile, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      QuantizeBlock(a.in[0].as<const T>() + b * kQuantBlock, bits, a.out[0].as<uint8_t>() + b * RecordBytes(bits));
    }
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status DequantizeTo(const KernelArgs& a) {
  const QuantBits bits = QuantBitsOf(a.op);
  ForTiles(a.pool, a.out[0].shape.elements() / kQuantBlock, kBlocksOfTile, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      T* const out = a.out[0].as<T>() + b * kQuantBlock;
      ForDequantized(a.in[0].as<const uint8_t>() + b * RecordBytes(bits), bits,
                     [&](int64_t i, float x) { out[i] = static_cast<T>(x); });
    }
  });
  return absl::OkStatus();
}

absl::Status RunDequantize(const KernelArgs& a) {
  if (a.out[0].dtype == DType::kF64) return DequantizeTo<double>(a);
  return a.out[0].dtype == DType::kF32 ? DequantizeTo<float>(a) : DequantizeTo<BF16>(a);
}

template <typename T>
void DequantizeSumTo(const KernelArgs& a) {
  const QuantBits bits = QuantBitsOf(a.op);
  const int64_t rows = a.in[0].shape[0], row = a.in[0].shape[1];
  ForTiles(a.pool, a.out[0].shape.elements() / kQuantBlock, kBlocksOfTile, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      T* const out = a.out[0].as<T>() + b * kQuantBlock;
      std::fill(out, out + kQuantBlock, T(0));
      for (int64_t r = 0; r < rows; ++r) {
        ForDequantized(a.in[0].as<const uint8_t>() + r * row + b * RecordBytes(bits), bits,
                       [&](int64_t i, float x) { out[i] += static_cast<T>(x); });
      }
    }
  });
}

absl::Status RunDequantizeSum(const KernelArgs& a) {
  if (a.out[0].dtype == DType::kF64) {
    DequantizeSumTo<double>(a);
  } else {
    DequantizeSumTo<float>(a);
  }
  return absl::OkStatus();
}

}  // namespace

void AddQuantizeKernels(KernelTable& table) {
  table.Add("quantize", DType::kF64, {.run = RunQuantize<double>});
  table.Add("quantize", DType::kF32, {.run = RunQuantize<float>});
  table.Add("quantize", DType::kBF16, {.run = RunQuantize<BF16>});
  for (const DType t : {DType::kF64, DType::kF32, DType::kBF16}) table.Add("dequantize", t, {.run = RunDequantize});
  for (const DType t : {DType::kF64, DType::kF32}) table.Add("dequantize_sum", t, {.run = RunDequantizeSum});
}

}  // namespace strata
