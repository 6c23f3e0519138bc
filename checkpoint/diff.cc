#include "checkpoint/diff.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "absl/strings/str_format.h"
#include "checkpoint/reader.h"
#include "core/base/status.h"

namespace strata {
namespace {

constexpr int64_t kSlabBytes = int64_t{4} << 20;

template <typename T>
double Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  if constexpr (std::is_same_v<T, BF16>) {
    return static_cast<float>(value);
  } else {
    return static_cast<double>(value);
  }
}

double Element(DType dtype, const std::byte* at) {
  switch (dtype) {
    case DType::kF64: return Load<double>(at);
    case DType::kF32: return Load<float>(at);
    case DType::kBF16: return Load<BF16>(at);
    case DType::kI64: return Load<int64_t>(at);
    case DType::kI32: return Load<int32_t>(at);
    case DType::kU8: return Load<uint8_t>(at);
    case DType::kLow16: return Load<uint16_t>(at);
  }
  return 0;
}

std::string Position(int64_t index, const Shape& shape) {
  std::string text;
  for (int d = shape.rank - 1; d >= 0; --d) {
    text = absl::StrFormat("%d%s%s", index % shape[d], text.empty() ? "" : ", ", text);
    index /= shape[d];
  }
  return "[" + text + "]";
}

// Compares the elements of one slab that begins at element `first` of the tensor.
void CompareSlab(DType dtype, const Shape& shape, int64_t first, std::span<const std::byte> a,
                 std::span<const std::byte> b, TensorDiff& diff) {
  const int64_t width = SizeOf(dtype), n = std::ssize(a) / width;
  for (int64_t i = 0; i < n; ++i) {
    const std::byte *x = a.data() + i * width, *y = b.data() + i * width;
    if (std::memcmp(x, y, width) == 0) continue;
    const double u = Element(dtype, x), v = Element(dtype, y), abs = std::abs(u - v);
    const double scale = std::max(std::abs(u), std::abs(v));
    // Not (abs <= max): a NaN is the largest difference of all, and the first one stays.
    if (diff.elements++ == 0 || (!std::isnan(diff.max_abs) && !(abs <= diff.max_abs))) {
      diff.max_abs = abs;
      diff.position = Position(first + i, shape);
    }
    if (scale > 0) diff.max_rel = std::max(diff.max_rel, abs / scale);
  }
}

std::string Spec(const TensorRecord& t) { return absl::StrFormat("%s%s", Name(t.dtype), ToString(t.global)); }

absl::StatusOr<TensorDiff> CompareTensors(CheckpointReader& a, CheckpointReader& b, const TensorRecord& t,
                                          const TensorRecord& u) {
  TensorDiff diff{.name = t.name, .of = t.global.elements()};
  if (t.dtype != u.dtype || t.global != u.global) {
    diff.what = absl::StrFormat("%s in A, %s in B", Spec(t), Spec(u));
    return diff;
  }
  const int64_t rows = t.global.rank == 0 ? 1 : t.global[0];
  const int64_t row_bytes = diff.of / rows * SizeOf(t.dtype), step = std::max<int64_t>(1, kSlabBytes / row_bytes);
  std::vector<std::byte> x, y;
  TensorBox box{t.name, t.dtype, t.global, {}, t.global};
  box.offset.rank = t.global.rank;
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t count = std::min(step, rows - row);
    if (t.global.rank > 0) box.offset[0] = row, box.size[0] = count;
    x.resize(count * row_bytes);
    y.resize(count * row_bytes);
    RETURN_IF_ERROR(a.Read(box, x));
    RETURN_IF_ERROR(b.Read(box, y));
    CompareSlab(t.dtype, t.global, row * (diff.of / rows), x, y, diff);
  }
  return diff;
}

}  // namespace

absl::StatusOr<CheckpointDiff> DiffCheckpoints(Env& env, const std::string& a, const std::string& b) {
  ASSIGN_OR_RETURN(CheckpointReader first, CheckpointReader::Open(env, a));
  ASSIGN_OR_RETURN(CheckpointReader second, CheckpointReader::Open(env, b));
  std::map<std::string, std::pair<const TensorRecord*, const TensorRecord*>> tensors;
  for (const TensorRecord& t : first.tensors()) tensors[t.name].first = &t;
  for (const TensorRecord& t : second.tensors()) tensors[t.name].second = &t;
  CheckpointDiff result{.tensors = std::ssize(tensors), .differ = {}};
  for (const auto& [name, both] : tensors) {
    const auto& [t, u] = both;
    if (t == nullptr || u == nullptr) {
      result.differ.push_back({.name = name, .what = t == nullptr ? "only in B" : "only in A"});
      continue;
    }
    ASSIGN_OR_RETURN(TensorDiff diff, CompareTensors(first, second, *t, *u));
    if (!diff.what.empty() || diff.elements > 0) result.differ.push_back(std::move(diff));
  }
  return result;
}

std::string CheckpointDiff::ToText() const {
  size_t width = 0;
  for (const TensorDiff& d : differ) width = std::max(width, d.name.size());
  std::string text;
  for (const TensorDiff& d : differ) {
    text += absl::StrFormat("%-*s  ", static_cast<int>(width), d.name);
    text += d.what.empty() ? absl::StrFormat("%d of %d elements, max abs %.3g at %s, max rel %.3g\n", d.elements, d.of,
                                             d.max_abs, d.position, d.max_rel)
                           : d.what + "\n";
  }
  return text + absl::StrFormat("%d of %d tensors differ\n", differ.size(), tensors);
}

}  // namespace strata
