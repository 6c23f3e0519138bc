#include "tests/testing/op_checks.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/graph/autograd.h"
#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata::testing {

absl::StatusOr<std::vector<Tensor>> Call(const GraphFn& fn, const std::vector<Tensor>& inputs,
                                         const EvalOptions& options) {
  GraphBuilder g;
  std::map<std::string, Tensor> bindings;
  std::vector<Value> args;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string name = absl::StrFormat("in%d", i);
    args.push_back(g.Input(name, {inputs[i].dtype, inputs[i].shape, {}}));
    bindings[name] = inputs[i];
  }
  const std::vector<Value> outputs = fn(g, args);
  for (size_t i = 0; i < outputs.size(); ++i) g.Output(absl::StrFormat("out%d", i), outputs[i]);
  ASSIGN_OR_RETURN(Graph graph, std::move(g).Build());
  const KernelTable kernels = options.kernels != nullptr ? *options.kernels : CpuKernels();
  const auto missing = [&](const Op& op) { return op.name() != "input" && !op.IsView() && !kernels.Has(op.name()); };
  if (std::any_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& n) { return missing(*n.op); })) {
    ASSIGN_OR_RETURN(graph, DecomposeOps(graph, missing));
  }
  ASSIGN_OR_RETURN(auto values, Evaluate(graph, bindings, options));
  std::vector<Tensor> result;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Value v = graph.outputs.at(absl::StrFormat("out%d", i));
    result.push_back(values[v.node][v.output]);
  }
  return result;
}

Tensor Converted(const Tensor& x, DType dtype) {
  if (!IsFloating(x.dtype)) return x;
  Tensor y = Tensor::Zeros(dtype, x.shape);
  for (int64_t i = 0; i < x.size(); ++i) y.set(i, x.at(i));
  return y;
}

absl::StatusOr<double> DTypeError(const GraphFn& fn, const std::vector<Tensor>& inputs, DType dtype) {
  std::vector<Tensor> rounded, wide;
  for (const Tensor& x : inputs) {
    rounded.push_back(Converted(x, dtype));
    wide.push_back(Converted(rounded.back(), DType::kF64));
  }
  ASSIGN_OR_RETURN(const std::vector<Tensor> got, Call(fn, rounded));
  ASSIGN_OR_RETURN(const std::vector<Tensor> expected, Call(fn, wide));
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    worst = std::max(worst, MaxAbsDiff(got[i], expected[i]) / std::max(1.0, MaxAbs(expected[i])));
  }
  return worst;
}

absl::Status CheckThreads(const GraphFn& fn, const std::vector<Tensor>& inputs) {
  for (DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    std::vector<Tensor> converted;
    for (const Tensor& x : inputs) converted.push_back(Converted(x, dtype));
    ASSIGN_OR_RETURN(const std::vector<Tensor> expected, Call(fn, converted));
    for (int threads = 1; threads <= 3; ++threads) {
      ThreadPool pool(threads);
      EvalOptions options;
      options.pool = &pool;
      ASSIGN_OR_RETURN(const std::vector<Tensor> got, Call(fn, converted, options));
      for (size_t i = 0; i < got.size(); ++i) {
        if (got[i].data != expected[i].data) {
          return absl::InternalError(
              absl::StrFormat("output %d in %s differs with %d threads", i, Name(dtype), threads));
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status BuildError(const GraphFn& fn, const std::vector<TensorSpec>& inputs) {
  GraphBuilder g;
  std::vector<Value> args;
  for (size_t i = 0; i < inputs.size(); ++i) args.push_back(g.Input(absl::StrFormat("in%d", i), inputs[i]));
  fn(g, args);
  return std::move(g).Build().status();
}

}  // namespace strata::testing
