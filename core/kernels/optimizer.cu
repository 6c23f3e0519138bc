// sum_squares, sqrt, guard; adamw and sgd in place, by the formulas of core/ops/optimizer.h: one reading and one writing of
// the weights and states. The step's scalars and the norm are read on the GPU.
#include "core/kernels/map.cuh"
#include "core/kernels/optimizer_cost.h"
#include "core/kernels/sum_squares.cuh"
#include "core/kernels/update.cuh"

namespace strata {
namespace {

__device__ __forceinline__ float Clip(double max_norm, float norm) {
  return max_norm > 0 ? static_cast<float>(fmin(1.0, max_norm / (static_cast<double>(norm) + 1e-6))) : 1.0f;
}

struct AdamW {
  static constexpr int kStates = 2;
  double beta1, beta2, eps, max_norm;
  struct Constants {
    float clip, beta1, beta2, rest1, rest2, m_scale, v_scale, eps, lr;
  };
  __device__ Constants At(const StepScalars& now, float norm) const {
    const auto t = static_cast<double>(now.step);
    return {Clip(max_norm, norm),
            static_cast<float>(beta1),
            static_cast<float>(beta2),
            static_cast<float>(1 - beta1),
            static_cast<float>(1 - beta2),
            static_cast<float>(1 / (1 - pow(beta1, t))),
            static_cast<float>(1 / (1 - pow(beta2, t))),
            static_cast<float>(eps),
            static_cast<float>(now.lr)};
  }
  static __device__ __forceinline__ void Update(const Constants& c, float decay, float grad, float& w, float* state) {
    float &m = state[0], &v = state[1];
    const float g = grad * c.clip;
    m = c.beta1 * m + c.rest1 * g;
    v = c.beta2 * v + c.rest2 * g * g;
    w -= c.lr * ((m * c.m_scale) / (sqrtf(v * c.v_scale) + c.eps) + decay * w);
  }
};

struct Sgd {
  static constexpr int kStates = 1;
  double momentum, max_norm;
  bool nesterov;
  struct Constants {
    float clip, momentum, lr;
    bool nesterov;
  };
  __device__ Constants At(const StepScalars& now, float norm) const {
    return {Clip(max_norm, norm), static_cast<float>(momentum), static_cast<float>(now.lr), nesterov};
  }
  static __device__ __forceinline__ void Update(const Constants& c, float decay, float grad, float& w, float* state) {
    float& u = state[0];
    const float g = grad * c.clip + decay * w;
    u = c.momentum * u + g;
    w -= c.lr * (c.nesterov ? g + c.momentum * u : u);
  }
};

// in: weights, grads, states..., norm, live or none; out: weights, states..., live.
template <typename Grad, typename Rule>
absl::Status UpdateBy(const KernelArgs& a, const Rule& rule, std::span<const DecayRange> segments) {
  constexpr size_t kNorm = 2 + Rule::kStates, kLive = 1 + Rule::kStates;
  Buckets<Rule::kStates, Grad> b{a.out[0].as<float>(), a.in[1].as<const Grad>()};
  for (int s = 0; s < Rule::kStates; ++s) b.state[s] = a.out[1 + s].as<float>();
  b.norm = a.in[kNorm].as<const float>();
  b.live = a.out.size() > kLive ? a.out[kLive].as<CudaBF16>() : nullptr;
  LaunchUpdate(StreamOf(a), rule, b, a.scalars, a.out[0].origin[0], a.out[0].shape.elements(), segments);
  return Launched("optimizer update");
}
template <typename Rule>
absl::Status RunUpdate(const KernelArgs& a, const Rule& rule, std::span<const DecayRange> segments) {
  return a.in[1].dtype == DType::kBF16 ? UpdateBy<CudaBF16>(a, rule, segments) : UpdateBy<float>(a, rule, segments);
}

absl::Status RunAdamW(const KernelArgs& a) {
  const AdamWSpec& s = AdamWSpecOf(a.op);
  return RunUpdate(a, AdamW{s.beta1, s.beta2, s.eps, s.max_norm}, s.segments);
}
absl::Status RunSgd(const KernelArgs& a) {
  const SgdSpec& s = SgdSpecOf(a.op);
  return RunUpdate(a, Sgd{s.momentum, s.max_norm, s.nesterov}, s.segments);
}

template <typename T>
absl::Status RunSumSquares(const KernelArgs& a) {
  LaunchSumSquares(StreamOf(a), a.in[0].as<const T>(), a.in[0].origin[0], a.in[0].shape.elements(),
                   SumSquaresRanges(a.op), reinterpret_cast<double*>(a.workspace.data()), a.out[0].as<float>());
  return Launched("sum_squares");
}

int64_t Workspace(const Op& op, std::span<const TensorRef>) { return SumSquaresWorkspace(SumSquaresRanges(op)); }

struct SqrtFn {
  __device__ void operator()(const float* x, float* y) const { y[0] = sqrtf(x[0]); }
};
absl::Status RunSqrt(const KernelArgs& a) { return MapFlat<float, 1, float>(a, SqrtFn{}); }

__global__ void GuardNorm(const float* norm, const float* loss, const StepScalars* now, float* out) {
  const bool good = isfinite(*norm) && isfinite(*loss) && *loss <= now->loss_limit;
  *out = good ? *norm : NAN;
}
absl::Status RunGuard(const KernelArgs& a) {
  GuardNorm<<<1, 1, 0, StreamOf(a)>>>(a.in[0].as<const float>(), a.in[1].as<const float>(), a.scalars,
                                      a.out[0].as<float>());
  return Launched("guard");
}

}  // namespace

void AddCudaOptimizerKernels(KernelTable& table) {
  table.Add("sum_squares", DType::kF32, {.run = RunSumSquares<float>, .workspace = Workspace, .cost = StreamingCost});
  table.Add("sum_squares", DType::kBF16,
            {.run = RunSumSquares<CudaBF16>, .workspace = Workspace, .cost = StreamingCost});
  table.Add("sqrt", DType::kF32, {.run = RunSqrt, .cost = StreamingCost});
  table.Add("guard", DType::kF32, {.run = RunGuard, .cost = StreamingCost});
  table.Add("adamw", DType::kF32, {.run = RunAdamW, .cost = UpdateCost<AdamW::kStates>});
  table.Add("sgd", DType::kF32, {.run = RunSgd, .cost = UpdateCost<Sgd::kStates>});
}

}  // namespace strata
