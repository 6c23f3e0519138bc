#include <cmath>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/autograd.h"
#include "core/graph/builder.h"
#include "core/ops/elementwise.h"
#include "core/ops/move.h"
#include "tests/testing/interpreter.h"

namespace strata::testing {
namespace {

constexpr double kEps = 1e-5;

using Bindings = std::map<std::string, Tensor>;

struct Problem {
  Graph forward;
  Value loss, seed;
  std::vector<Value> inputs;
  Bindings bindings;
};

// loss = sum over floating outputs y of sum(y * w), with fixed random w.
absl::StatusOr<Problem> MakeProblem(const GraphFn& fn, const std::vector<Tensor>& inputs) {
  Problem p;
  GraphBuilder g;
  const auto bind = [&](const std::string& name, const Tensor& t) {
    p.bindings[name] = t;
    return g.Input(name, {t.dtype, t.shape, {}});
  };
  for (size_t i = 0; i < inputs.size(); ++i) p.inputs.push_back(bind(absl::StrFormat("in%d", i), inputs[i]));
  p.seed = bind("seed", Tensor::Of({}, {1}));
  const std::vector<Value> outputs = fn(g, p.inputs);
  RETURN_IF_ERROR(g.status());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const TensorSpec spec = g.spec(outputs[i]);
    if (!IsFloating(spec.dtype)) continue;
    const Value w = bind(absl::StrFormat("w%d", i), Tensor::Random(spec.dtype, spec.shape, 1000 + i));
    const Value term = ReduceSumAll(g, Mul(g, outputs[i], w));
    p.loss = p.loss.valid() ? Add(g, p.loss, term) : term;
  }
  if (!p.loss.valid()) return absl::InvalidArgumentError("no floating output to differentiate");
  ASSIGN_OR_RETURN(p.forward, std::move(g).Build());
  return p;
}

absl::StatusOr<double> Loss(Problem& p) {
  ASSIGN_OR_RETURN(const auto values, Evaluate(p.forward, p.bindings));
  return values[p.loss.node][p.loss.output].at(0);
}

absl::StatusOr<double> CentralDifference(Problem& p, Tensor& x, int64_t i) {
  const double old = x.at(i);
  x.set(i, old + kEps);
  ASSIGN_OR_RETURN(const double above, Loss(p));
  x.set(i, old - kEps);
  ASSIGN_OR_RETURN(const double below, Loss(p));
  x.set(i, old);
  return (above - below) / (2 * kEps);
}

}  // namespace

absl::StatusOr<double> GradientError(const GraphFn& fn, const std::vector<Tensor>& inputs, int max_checks_per_input) {
  ASSIGN_OR_RETURN(Problem p, MakeProblem(fn, inputs));
  std::vector<Value> wrt;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (IsFloating(inputs[i].dtype)) wrt.push_back(p.inputs[i]);
  }
  ASSIGN_OR_RETURN(const Graph graph, Differentiate(p.forward, p.loss, p.seed, wrt));
  ASSIGN_OR_RETURN(const auto values, Evaluate(graph, p.bindings));
  double worst = 0;
  for (size_t k = 0; k < wrt.size(); ++k) {
    Tensor& x = p.bindings[AsInput(p.forward.nodes[wrt[k].node])->input()];
    Tensor grad = Tensor::Zeros(x.dtype, x.shape);  // where the loss does not depend on x
    const auto it = graph.outputs.find(absl::StrFormat("grad.%d", k));
    if (it != graph.outputs.end()) grad = values[it->second.node][it->second.output];
    const double scale = std::max(1.0, MaxAbs(grad));
    const int64_t step = std::max<int64_t>(1, x.size() / max_checks_per_input) | 1;  // odd: does not walk along a column
    for (int64_t i = 0; i < x.size(); i += step) {
      ASSIGN_OR_RETURN(const double expected, CentralDifference(p, x, i));
      const double error = std::abs(grad.at(i) - expected) / scale;
      if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
    }
  }
  return worst;
}

}  // namespace strata::testing
