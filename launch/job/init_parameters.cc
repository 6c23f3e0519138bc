#include "launch/job/init_parameters.h"

#include <algorithm>
#include <array>

#include "core/base/philox.h"
#include "core/kernels/normal_cpu.h"
#include "models/model.h"

namespace strata {
namespace {

constexpr std::string_view kMaster = ".master";

bool IsFlat(const PlannedState& s) { return s.name.compare(0, 7, "bucket.") == 0; }

}  // namespace

void ForEachRow(const LocalBox& box, const Shape& global, absl::FunctionRef<void(int64_t, int64_t, int64_t)> fn,
                ThreadPool* pool) {
  const int rank = global.rank;
  const int64_t row = rank == 0 ? 1 : box.shape[rank - 1], rows = box.shape.elements() / row;
  ParallelFor(pool, rows, [&](int64_t r) {
    int64_t rest = r, stride = 1, base = 0;
    for (int d = rank - 1; d >= 0; --d) {
      const int64_t i = d == rank - 1 ? 0 : rest % box.shape[d];
      if (d < rank - 1) rest /= box.shape[d];
      base += (box.origin[d] + i) * stride;
      stride *= global[d];
    }
    fn(r * row, base, row);
  });
}

int64_t IndexWithoutPadding(const Shape& shape, const Shape& model, int64_t index) {
  int64_t result = 0, stride = 1;
  for (int d = shape.rank - 1; d >= 0; --d) {
    const int64_t at = index % shape[d];
    if (at >= model[d]) return -1;
    result += at * stride;
    stride *= model[d];
    index /= shape[d];
  }
  return result;
}

std::string_view ParameterOf(const PlannedState& s) {
  const std::string_view name = s.name;
  return s.role == Role::kMaster ? name.substr(0, name.size() - kMaster.size()) : name;
}

bool HasInitialValue(const PlannedState& state) {
  return !IsFlat(state) && (state.role == Role::kParam || state.role == Role::kMaster);
}

void InitState(const PlannedState& state, LiveWeights live, const ModelConfig& config, uint64_t seed,
               std::span<std::byte> bytes, ThreadPool* pool) {
  if (!HasInitialValue(state)) return;
  const std::string_view parameter = ParameterOf(state);
  const InitSpec init = ModelOf(config.arch).init(config, parameter);
  const uint64_t stream = HashName(parameter);
  const Shape& model = state.model_shape;
  const int last = model.rank - 1;
  const int64_t size = SizeOf(state.spec.dtype), column = last < 0 ? 0 : state.box.origin[last];
  const auto fill = [&](int64_t local, int64_t global, int64_t count) {
    const int64_t start = IndexWithoutPadding(state.spec.shape, model, global - column);
    const int64_t without_padding = start < 0 ? 0 : last < 0 ? count : model[last] - column;
    std::array<double, 1024> part;
    for (int64_t at = 0; at < count; at += std::ssize(part)) {
      const std::span<double> values = std::span(part).first(std::min<int64_t>(std::ssize(part), count - at));
      const auto there = static_cast<size_t>(std::clamp<int64_t>(without_padding - at, 0, std::ssize(values)));
      std::fill(values.begin(), values.end(), 0.0);
      if (init.std != 0) FillNormals(seed, stream, static_cast<uint64_t>(start + column + at), values.first(there));
      for (double& v : values.first(there)) v = init.mean + init.std * v;
      std::byte* to = bytes.data() + (local + at) * size;
      for (const double v : values) {
        PutWeight(state.spec.dtype, live, v, to);
        to += size;
      }
    }
  };
  ForEachRow(state.box, state.spec.shape, fill, pool);
}

}  // namespace strata
