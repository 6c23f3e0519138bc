#include "launch/job/hf_weights.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/box.h"
#include "core/base/status.h"
#include "launch/job/init_parameters.h"

namespace strata {
namespace {

// The state's local box as `type`, row-major; beyond the model's shape zeros.
absl::StatusOr<std::vector<std::byte>> ReadLocalBox(const HfModel& model, const PlannedState& s, StoredType type) {
  const int64_t element = SizeOf(type);
  std::vector<std::byte> bytes(static_cast<size_t>(s.box.shape.elements() * element));
  Shape size = s.box.shape;
  const Shape& whole = s.model_shape.rank > 0 ? s.model_shape : s.spec.shape;
  for (int d = 0; d < size.rank; ++d) {
    size[d] = std::min(size[d], whole[d] - s.box.origin[d]);
    if (size[d] <= 0) return bytes;
  }
  const std::string parameter(ParameterOf(s));
  if (size == s.box.shape) {
    RETURN_IF_ERROR(model.Read(parameter, s.box.origin, size, type, bytes));
    return bytes;
  }
  std::vector<std::byte> part(static_cast<size_t>(size.elements() * element));
  RETURN_IF_ERROR(model.Read(parameter, s.box.origin, size, type, part));
  RETURN_IF_ERROR(
      ForEachRun(s.box.origin, size, s.box.origin, s.box.shape, element, [&](int64_t from, int64_t to, int64_t count) {
        std::memcpy(bytes.data() + to, part.data() + from, static_cast<size_t>(count));
        return absl::OkStatus();
      }));
  return bytes;
}

// Of float32.
std::vector<std::byte> HalvesOf(std::span<const std::byte> whole, DType dtype) {
  const size_t count = whole.size() / sizeof(float), size = static_cast<size_t>(SizeOf(dtype));
  std::vector<std::byte> half(count * size);
  for (size_t i = 0; i < count; ++i) {
    float value;
    std::memcpy(&value, whole.data() + i * sizeof(float), sizeof(float));
    PutWeight(dtype, LiveWeights::kUpperHalves, value, half.data() + i * size);
  }
  return half;
}

}  // namespace

absl::Status LoadHfWeights(const HfModel& model, Executor& executor) {
  const LiveWeights live = LiveWeightsOf(executor.plan());
  for (const PlannedState& s : executor.plan().states) {
    if (!HasInitialValue(s)) continue;
    const bool half =
        s.spec.dtype == DType::kLow16 || (s.spec.dtype == DType::kBF16 && live == LiveWeights::kUpperHalves);
    const StoredType type = half ? StoredType::kF32 : StoredTypeOf(s.spec.dtype);
    ASSIGN_OR_RETURN(std::vector<std::byte> box, ReadLocalBox(model, s, type));
    if (half) box = HalvesOf(box, s.spec.dtype);
    const auto element = static_cast<size_t>(SizeOf(s.spec.dtype));
    const auto first = static_cast<size_t>(s.first), count = static_cast<size_t>(s.count);
    RETURN_IF_ERROR(executor.WriteState(s, std::span(box).subspan(first * element, count * element)));
  }
  return absl::OkStatus();
}

}  // namespace strata
