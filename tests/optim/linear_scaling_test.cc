// The linear scaling rule (Goyal et al., arXiv:1706.02677, sec. 2.1): k steps of SGD on small batches and one step on all of
// them with k times the learning rate differ only by how the gradient changes on the way, so by the square of the rate.

#include <gtest/gtest.h>

#include <cmath>

#include "core/graph/builder.h"
#include "core/ops/optimizer.h"
#include "optim/schedule.h"
#include "tests/testing/interpreter.h"

namespace strata {
namespace {

using testing::Tensor;

constexpr int64_t kWeights = 5, kSamples = 64;

// Sample s: half of sum_i curvature(s, i) (w_i - centre(s, i))^2.
struct Quadratic {
  Tensor curvature = Tensor::Random(DType::kF64, {kSamples, kWeights}, 1);
  Tensor centre = Tensor::Random(DType::kF64, {kSamples, kWeights}, 2);
  // The mean gradient over samples [first, first + n).
  Tensor Gradient(const Tensor& w, int64_t first, int64_t n) const {
    Tensor g = Tensor::Zeros(DType::kF64, {kWeights});
    for (int64_t s = first; s < first + n; ++s) {
      for (int64_t i = 0; i < kWeights; ++i) {
        const int64_t at = s * kWeights + i;
        g.set(i, g.at(i) + std::abs(curvature.at(at)) * (w.at(i) - centre.at(at)) / static_cast<double>(n));
      }
    }
    return g;
  }
};

// Weights after one pass over the samples in batches of `batch`.
Tensor OnePass(int64_t batch, double lr) {
  GraphBuilder g;
  const TensorSpec flat = {DType::kF64, {kWeights}, {}};
  const StateId w = g.Declare({"w", Role::kParam, flat}), u = g.Declare({"u", Role::kMoment1, flat});
  const SgdResults next = Sgd(g, {.momentum = 0},
                              {.weights = g.Read(w),
                               .grads = g.Input("grads", flat),
                               .u = g.Read(u),
                               .norm = g.Input("norm", {DType::kF64, {}, {}})});
  g.Update(w, next.weights);
  g.Update(u, next.u);
  const Graph graph = *std::move(g).Build();
  const Quadratic problem;
  std::map<std::string, Tensor> bindings = {{"w", Tensor::Of({kWeights}, {1, -1, 2, 0, 3})},
                                            {"u", Tensor::Zeros(DType::kF64, {kWeights})},
                                            {"norm", Tensor::Of({}, {1})}};
  testing::EvalOptions options;
  options.scalars.lr = lr;
  for (int64_t first = 0; first < kSamples; first += batch) {
    bindings["grads"] = problem.Gradient(bindings["w"], first, batch);
    EXPECT_TRUE(testing::Evaluate(graph, bindings, options).ok());
  }
  return bindings["w"];
}

double Scaled(double lr, int64_t batch, int64_t base) {
  ScheduleConfig schedule{.steps = 1, .warmup = 0, .min_lr = 1};
  schedule.scaling = LrScaling::kLinear;
  schedule.base_tokens = base;
  OptimConfig optim;
  optim.lr = lr;
  return LearningRate(optim, schedule, batch, 1);
}

TEST(LinearScaling, ManySmallStepsAreOneLargeOneUpToTheSquareOfTheRate) {
  constexpr int64_t kSmall = 4;
  const Tensor start = OnePass(kSmall, 0);
  std::vector<double> differences, unscaled;
  for (double lr : {1e-3, 5e-4}) {
    const Tensor many = OnePass(kSmall, lr);
    differences.push_back(MaxAbsDiff(many, OnePass(kSamples, Scaled(lr, kSamples, kSmall))));
    unscaled.push_back(MaxAbsDiff(many, OnePass(kSamples, lr)));
    EXPECT_LT(differences.back(), 0.02 * MaxAbsDiff(many, start)) << lr;
  }
  EXPECT_NEAR(differences[0] / differences[1], 4, 0.2);  // of second order
  EXPECT_NEAR(unscaled[0] / unscaled[1], 2, 0.2);        // without the rule: of first order
}

}  // namespace
}  // namespace strata
