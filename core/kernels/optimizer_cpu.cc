// guard: NaN for a step whose update is held back.
// adamw, sgd: the formulas of core/ops/optimizer.h, in place.

#include "core/ops/optimizer.h"

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/optimizer_cost.h"

namespace strata {
namespace {

constexpr int64_t kLanes = 16;  // a known count, so that the compiler keeps them in vectors

template <typename T>
absl::Status RunSqrt(const KernelArgs& a) {
  for (int64_t i = 0; i < a.out[0].shape.elements(); ++i) a.out[0].as<T>()[i] = std::sqrt(a.in[0].as<const T>()[i]);
  return absl::OkStatus();
}

double Clip(double max_norm, double norm) { return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0; }

template <typename T>
absl::Status RunGuard(const KernelArgs& a) {
  const T norm = *a.in[0].as<const T>(), loss = *a.in[1].as<const T>();
  const bool good = std::isfinite(norm) && std::isfinite(loss) && loss <= a.scalars->loss_limit;
  *a.out[0].as<T>() = good ? norm : std::numeric_limits<T>::quiet_NaN();
  return absl::OkStatus();
}

template <typename T>
struct AdamWStep {  // the constants of one step
  T clip, beta1, beta2, m_scale, v_scale, eps, lr;
  AdamWStep(const AdamWSpec& s, const StepScalars& now, T norm)
      : clip(static_cast<T>(Clip(s.max_norm, static_cast<double>(norm)))),
        beta1(static_cast<T>(s.beta1)),
        beta2(static_cast<T>(s.beta2)),
        m_scale(static_cast<T>(1 / (1 - std::pow(s.beta1, static_cast<double>(now.step))))),
        v_scale(static_cast<T>(1 / (1 - std::pow(s.beta2, static_cast<double>(now.step))))),
        eps(static_cast<T>(s.eps)),
        lr(static_cast<T>(now.lr)) {}
};

// kCount elements, or n where kCount is 0.
template <int64_t kCount, typename T, typename G>
void UpdateElements(const AdamWStep<T>& s, T decay, int64_t n, T* __restrict w, const G* __restrict grad,
                    T* __restrict m, T* __restrict v) {
  for (int64_t i = 0; i < (kCount > 0 ? kCount : n); ++i) {
    const T g = static_cast<T>(grad[i]) * s.clip;
    m[i] = s.beta1 * m[i] + (T(1) - s.beta1) * g;
    v[i] = s.beta2 * v[i] + (T(1) - s.beta2) * g * g;
    w[i] -= s.lr * ((m[i] * s.m_scale) / (std::sqrt(v[i] * s.v_scale) + s.eps) + decay * w[i]);
  }
}

template <typename T>
struct SgdStep {
  T clip, momentum, lr;
  bool nesterov;
  SgdStep(const SgdSpec& s, const StepScalars& now, T norm)
      : clip(static_cast<T>(Clip(s.max_norm, static_cast<double>(norm)))),
        momentum(static_cast<T>(s.momentum)),
        lr(static_cast<T>(now.lr)),
        nesterov(s.nesterov) {}
};

template <int64_t kCount, typename T, typename G>
void UpdateElements(const SgdStep<T>& s, T decay, int64_t n, T* __restrict w, const G* __restrict grad,
                    T* __restrict u) {
  for (int64_t i = 0; i < (kCount > 0 ? kCount : n); ++i) {
    const T g = static_cast<T>(grad[i]) * s.clip + decay * w[i];
    u[i] = s.momentum * u[i] + g;
    w[i] -= s.lr * (s.nesterov ? g + s.momentum * u[i] : u[i]);
  }
}

template <typename T, typename G, typename Step, typename... State>
void UpdateRange(const KernelArgs& a, const Step& s, double decay, int64_t begin, int64_t end, T* w, State*... states) {
  const G* grad = a.in[1].as<const G>();
  const T rate = static_cast<T>(decay);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) UpdateElements<kLanes>(s, rate, kLanes, w + i, grad + i, (states + i)...);
  UpdateElements<0>(s, rate, end - i, w + i, grad + i, (states + i)...);
}

// The weights [begin, end) of a tile where they are kept in halves, which come together here for the time of an update.
class JoinedTile {
 public:
  JoinedTile(const TensorRef& low, const TensorRef& live, int64_t begin, int64_t end)
      : low_(low.as<uint16_t>() + begin), live_(live.as<BF16>() + begin), w_(static_cast<size_t>(end - begin)) {
    for (size_t i = 0; i < w_.size(); ++i) w_[i] = JoinHalves(live_[i], low_[i]);
  }
  void Split() {
    for (size_t i = 0; i < w_.size(); ++i) {
      const Halves h = SplitHalves(w_[i]);
      live_[i] = h.high;
      low_[i] = h.low;
    }
  }
  float* data() { return w_.data(); }

 private:
  uint16_t* low_;
  BF16* live_;
  std::vector<float> w_;
};

// Weights and states in place, tile by tile; then the live weights, where there are any. Gradients are of type G.
template <typename T, typename G, typename Step, typename... State>
absl::Status UpdateBy(const KernelArgs& a, T norm, const Step& step, std::span<const DecayRange> segments,
                      State*... states) {
  if (a.scalars->skip_update != 0 || !std::isfinite(norm)) return absl::OkStatus();
  constexpr size_t kLive = 1 + sizeof...(State);
  const int64_t origin = a.out[0].origin[0];
  ForTiles(a.pool, a.out[0].shape.elements(), kFlatTile, [&](int64_t begin, int64_t end) {
    std::optional<JoinedTile> joined;
    T* w = a.out[0].as<T>();
    if constexpr (std::is_same_v<T, float>) {
      if (a.out[0].dtype == DType::kLow16) w = joined.emplace(a.out[0], a.out[kLive], begin, end).data() - begin;
    }
    int64_t at = begin;
    for (const DecayRange& segment : segments) {
      const int64_t offset = segment.range.offset - origin, from = std::max(at, offset),
                    to = std::min(end, offset + segment.range.count);
      if (from >= to) continue;
      UpdateRange<T, G>(a, step, 0, at, from, w, states...);
      UpdateRange<T, G>(a, step, segment.decay, from, to, w, states...);
      at = to;
    }
    UpdateRange<T, G>(a, step, 0, at, end, w, states...);
    if (joined.has_value()) return joined->Split();
    if (a.out.size() <= kLive) return;
    for (int64_t i = begin; i < end; ++i) a.out[kLive].as<BF16>()[i] = BF16(static_cast<float>(w[i]));
  });
  return absl::OkStatus();
}

template <typename T, typename Step, typename... State>
absl::Status RunUpdate(const KernelArgs& a, T norm, const Step& step, std::span<const DecayRange> segments,
                       State*... states) {
  if constexpr (std::is_same_v<T, float>) {
    if (a.in[1].dtype == DType::kBF16) return UpdateBy<T, BF16>(a, norm, step, segments, states...);
  }
  return UpdateBy<T, T>(a, norm, step, segments, states...);
}

template <typename T>
absl::Status RunAdamW(const KernelArgs& a) {
  const AdamWSpec& spec = AdamWSpecOf(a.op);
  const T norm = *a.in[4].as<const T>();
  const AdamWStep<T> step(spec, *a.scalars, norm);
  return RunUpdate<T>(a, norm, step, spec.segments, a.out[1].as<T>(), a.out[2].as<T>());
}

template <typename T>
absl::Status RunSgd(const KernelArgs& a) {
  const SgdSpec& spec = SgdSpecOf(a.op);
  const T norm = *a.in[3].as<const T>();
  const SgdStep<T> step(spec, *a.scalars, norm);
  return RunUpdate<T>(a, norm, step, spec.segments, a.out[1].as<T>());
}

template <typename T>
void AddKernels(KernelTable& table, DType dtype) {
  table.Add("sqrt", dtype, {.run = RunSqrt<T>, .cost = StreamingCost});
  table.Add("guard", dtype, {.run = RunGuard<T>, .cost = StreamingCost});
  table.Add("adamw", dtype, {.run = RunAdamW<T>, .cost = UpdateCost<2>});
  table.Add("sgd", dtype, {.run = RunSgd<T>, .cost = UpdateCost<1>});
}

}  // namespace

void AddOptimizerKernels(KernelTable& table) {
  AddKernels<double>(table, DType::kF64);
  AddKernels<float>(table, DType::kF32);
  table.Add("adamw", DType::kLow16, {.run = RunAdamW<float>, .cost = UpdateCost<2>});
  table.Add("sgd", DType::kLow16, {.run = RunSgd<float>, .cost = UpdateCost<1>});
}

}  // namespace strata
