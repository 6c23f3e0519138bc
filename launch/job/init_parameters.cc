#include "launch/job/init_parameters.h"

#include "core/base/philox.h"
#include "models/model.h"

namespace strata {
namespace {

constexpr std::string_view kMaster = ".master";

bool IsFlat(const PlannedState& s) { return s.name.compare(0, 7, "bucket.") == 0; }

}  // namespace

void ForEachElement(const LocalBox& box, const Shape& global, absl::FunctionRef<void(int64_t, int64_t)> fn,
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
    for (int64_t c = 0; c < row; ++c) fn(r * row + c, base + c);
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
  const auto set = [&](int64_t local, int64_t global) {
    const int64_t i = state.model_shape == state.spec.shape
                          ? global
                          : IndexWithoutPadding(state.spec.shape, state.model_shape, global);
    double v = i < 0 ? 0 : init.mean;
    if (i >= 0 && init.std != 0) v += init.std * PhiloxNormal(Philox(seed, stream, static_cast<uint64_t>(i)));
    PutWeight(state.spec.dtype, live, v, bytes.data() + local * SizeOf(state.spec.dtype));
  };
  ForEachElement(state.box, state.spec.shape, set, pool);
}

}  // namespace strata
