#pragma once
// Checks that every op's test makes, besides GradientError (interpreter.h).

#include <string>
#include <vector>

#include "tests/testing/interpreter.h"

namespace strata::testing {

// Builds `fn` on inputs of the given tensors, runs it and returns its outputs.
absl::StatusOr<std::vector<Tensor>> Call(const GraphFn& fn, const std::vector<Tensor>& inputs, const EvalOptions& options = {});

// x in another dtype; integers stay as they are.
Tensor Converted(const Tensor& x, DType dtype);

// Runs `fn` in `dtype` and, on the same rounded inputs, in float64: the worst |a - b| / max(1, |b|_max) of its outputs.
absl::StatusOr<double> DTypeError(const GraphFn& fn, const std::vector<Tensor>& inputs, DType dtype);
// What DTypeError may be where sums are short: a few units of the dtype's last place.
constexpr double ToleranceOf(DType t) { return t == DType::kF64 ? 1e-13 : t == DType::kF32 ? 2e-6 : 1.6e-2; }

// OK if f64, f32 and bf16 give the same bits with pools of 1, 2 and 3 threads and with none.
absl::Status CheckThreads(const GraphFn& fn, const std::vector<Tensor>& inputs);

// The error of building `fn` on inputs of the given specs.
absl::Status BuildError(const GraphFn& fn, const std::vector<TensorSpec>& inputs);

}  // namespace strata::testing
