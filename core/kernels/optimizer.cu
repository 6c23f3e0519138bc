// sum_squares, sqrt, guard; adamw and sgd in place, by the formulas of core/ops/optimizer.h: one reading and one writing of
// the weights and states. The step's scalars and the norm are read on the GPU.
#include "core/kernels/map.cuh"
#include "core/kernels/optimizer_cost.h"
#include "core/kernels/sum_squares.cuh"
#include "core/kernels/update_launch.cuh"
#include "core/kernels/update_rules.cuh"

namespace strata {
namespace {

// in: weights, grads, states..., norm, live or none; out: weights, states..., live.
template <typename Grad, typename Master, typename Rule>
absl::Status UpdateBy(const KernelArgs& a, const Rule& rule, std::span<const DecayRange> segments) {
  constexpr size_t kNorm = 2 + Rule::kStates, kLive = 1 + Rule::kStates;
  Buckets<Rule::kStates, Grad, Master> b{a.out[0].as<Master>(), a.in[1].as<const Grad>()};
  for (int s = 0; s < Rule::kStates; ++s) b.state[s] = a.out[1 + s].as<float>();
  b.norm = a.in[kNorm].as<const float>();
  b.live = a.out.size() > kLive ? a.out[kLive].as<CudaBF16>() : nullptr;
  LaunchUpdate(StreamOf(a), rule, b, a.scalars, a.out[0].origin[0], a.out[0].shape.elements(), segments);
  return Launched("optimizer update");
}
template <typename Rule>
absl::Status RunUpdate(const KernelArgs& a, const Rule& rule, std::span<const DecayRange> segments) {
  const auto by = [&]<typename Grad>() {
    return a.out[0].dtype == DType::kLow16 ? UpdateBy<Grad, uint16_t>(a, rule, segments)
                                           : UpdateBy<Grad, float>(a, rule, segments);
  };
  return a.in[1].dtype == DType::kBF16 ? by.template operator()<CudaBF16>() : by.template operator()<float>();
}

absl::Status RunAdamW(const KernelArgs& a) {
  const AdamWSpec& s = AdamWSpecOf(a.op);
  return RunUpdate(a, AdamWRule(s), s.segments);
}
absl::Status RunSgd(const KernelArgs& a) {
  const SgdSpec& s = SgdSpecOf(a.op);
  return RunUpdate(a, SgdRule(s), s.segments);
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
  for (const DType t : {DType::kF32, DType::kLow16}) {  // of the weights
    table.Add("adamw", t, {.run = RunAdamW, .cost = UpdateCost<AdamWRule::kStates>});
    table.Add("sgd", t, {.run = RunSgd, .cost = UpdateCost<SgdRule::kStates>});
  }
}

}  // namespace strata
