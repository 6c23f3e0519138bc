#pragma once
// The types of numbers that safetensors files hold, and floating-point numbers between them and ours. Pure functions.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/tensor/tensor.h"

namespace strata {

// In the order that the safetensors library compares them by: it stores larger ones first. Types of less than a byte are
// not read.
enum class StoredType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64
};

std::string_view Name(StoredType type);  // "BF16"
std::optional<StoredType> StoredTypeOf(std::string_view name);
int64_t SizeOf(StoredType type);  // bytes

StoredType StoredTypeOf(DType dtype);              // the same numbers
bool IsFloating(StoredType type);                  // F16, BF16, F32, F64: what ConvertFloats takes
std::optional<DType> DTypeOf(StoredType type);     // the same numbers; none where we have no such type
inline constexpr DType kDTypeOfF16 = DType::kF32;  // what F16 is read as, without loss

// `count` numbers from one type to another, rounding to nearest even where they do not fit; NaN stays NaN. Bytes are copied
// as they are where the types are one; a number (but not a NaN) that was widened comes back as the same bits. Alignment does
// not matter.
void ConvertFloats(StoredType from, std::span<const std::byte> in, StoredType to, std::span<std::byte> out);

}  // namespace strata
