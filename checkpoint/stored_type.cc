#include "checkpoint/stored_type.h"

#include <cstring>
#include <iterator>

#include "core/base/check.h"

namespace strata {
namespace {

struct TypeRow {
  std::string_view name;
  int64_t bytes;
  std::optional<DType> dtype;
};
constexpr TypeRow kTypes[] = {
    // by StoredType
    {"BOOL", 1, {}},           {"U8", 1, DType::kU8},   {"I8", 1, {}},  {"F8_E5M2", 1, {}},
    {"F8_E4M3", 1, {}},        {"I16", 2, {}},          {"U16", 2, {}}, {"F16", 2, {}},
    {"BF16", 2, DType::kBF16}, {"I32", 4, DType::kI32}, {"U32", 4, {}}, {"F32", 4, DType::kF32},
    {"F64", 8, DType::kF64},   {"I64", 8, DType::kI64}, {"U64", 8, {}},
};
static_assert(std::size(kTypes) == static_cast<size_t>(StoredType::kU64) + 1);

const TypeRow& RowOf(StoredType type) { return kTypes[static_cast<size_t>(type)]; }

// IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction bits.
float HalfToFloat(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16, exponent = (half >> 10) & 0x1f, fraction = half & 0x3ff;
  if (exponent == 0x1f) return __builtin_bit_cast(float, sign | 0x7f800000u | (fraction << 13));
  if (exponent > 0) return __builtin_bit_cast(float, sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // subnormal or zero: exact
  return __builtin_bit_cast(float, sign | __builtin_bit_cast(uint32_t, magnitude));
}

uint16_t FloatToHalf(float f) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, f), magnitude = bits & 0x7fffffff;
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const auto with_sign = [&](uint32_t low) { return static_cast<uint16_t>(sign | low); };
  if (magnitude > 0x7f800000) {  // NaN: keep what fits of its bits, and one of them set
    const uint32_t fraction = (magnitude >> 13) & 0x3ff;
    return with_sign(0x7c00 | (fraction != 0 ? fraction : 0x200));
  }
  if (magnitude >= 0x477ff000) return with_sign(0x7c00);  // 65520 and above round to infinity
  if (magnitude >= 0x38800000) {                          // 2^-14 and above: normal
    const uint32_t rebased = magnitude - 0x38000000;
    return with_sign((rebased + 0xfff + ((rebased >> 13) & 1)) >> 13);
  }
  // A multiple of 2^-24: adding 0.5 leaves it, rounded, in the low bits of the sum.
  const float sum = __builtin_bit_cast(float, magnitude) + 0.5f;
  return with_sign(__builtin_bit_cast(uint32_t, sum) - __builtin_bit_cast(uint32_t, 0.5f));
}

template <typename T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}
template <typename T>
void Store(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

template <typename Read, typename Write>
void Each(std::span<const std::byte> in, int64_t in_bytes, std::span<std::byte> out, int64_t out_bytes, Read read,
          Write write) {
  const int64_t count = std::ssize(in) / in_bytes;
  for (int64_t i = 0; i < count; ++i) write(out.data() + i * out_bytes, read(in.data() + i * in_bytes));
}

template <typename Read>
void WriteAs(StoredType to, std::span<const std::byte> in, int64_t in_bytes, std::span<std::byte> out, Read read) {
  const auto each = [&](auto write) { Each(in, in_bytes, out, SizeOf(to), read, write); };
  switch (to) {
    case StoredType::kF64: return each([](std::byte* at, auto v) { Store(at, static_cast<double>(v)); });
    case StoredType::kF32: return each([](std::byte* at, auto v) { Store(at, static_cast<float>(v)); });
    case StoredType::kBF16: return each([](std::byte* at, auto v) { Store(at, BF16(static_cast<float>(v)).bits); });
    default: return each([](std::byte* at, auto v) { Store(at, FloatToHalf(static_cast<float>(v))); });
  }
}

}  // namespace

std::string_view Name(StoredType type) { return RowOf(type).name; }

std::optional<StoredType> StoredTypeOf(std::string_view name) {
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    if (kTypes[i].name == name) return static_cast<StoredType>(i);
  }
  return std::nullopt;
}

int64_t SizeOf(StoredType type) { return RowOf(type).bytes; }

StoredType StoredTypeOf(DType dtype) {
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    if (kTypes[i].dtype == dtype) return static_cast<StoredType>(i);
  }
  STRATA_CHECK(false);  // every dtype has its row
}

bool IsFloating(StoredType type) {
  return type == StoredType::kF16 || type == StoredType::kBF16 || type == StoredType::kF32 || type == StoredType::kF64;
}

std::optional<DType> DTypeOf(StoredType type) { return RowOf(type).dtype; }

void ConvertFloats(StoredType from, std::span<const std::byte> in, StoredType to, std::span<std::byte> out) {
  STRATA_CHECK(IsFloating(from) && IsFloating(to) && in.size() / SizeOf(from) == out.size() / SizeOf(to));
  if (in.empty()) return;
  if (from == to) {
    std::memcpy(out.data(), in.data(), in.size());
    return;
  }
  const auto from_as = [&](auto read) { WriteAs(to, in, SizeOf(from), out, read); };
  switch (from) {
    case StoredType::kF64: return from_as([](const std::byte* at) { return Load<double>(at); });
    case StoredType::kF32: return from_as([](const std::byte* at) { return Load<float>(at); });
    case StoredType::kBF16:
      return from_as([](const std::byte* at) {
        BF16 v;
        v.bits = Load<uint16_t>(at);
        return static_cast<float>(v);
      });
    default: return from_as([](const std::byte* at) { return HalfToFloat(Load<uint16_t>(at)); });
  }
}

}  // namespace strata
