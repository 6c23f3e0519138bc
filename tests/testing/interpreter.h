#pragma once
// Runs a graph node by node with the CPU kernels, each value in its own buffer: the oracle for plans.
// Collectives are carried out over a Communicator per axis set where a World is given (tests/testing/interpreter.cc).

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"
#include "core/exec/device.h"
#include "core/graph/graph.h"

namespace strata {
class GraphBuilder;
}

namespace strata::testing {

// An owned, contiguous tensor in host memory (local part, where a mesh is involved).
struct Tensor {
  DType dtype = DType::kF64;
  Shape shape;
  std::vector<std::byte> data;

  static Tensor Zeros(DType dtype, Shape shape);
  static Tensor Of(Shape shape, const std::vector<double>& values, DType dtype = DType::kF64);
  static Tensor Random(DType dtype, Shape shape, uint64_t seed, double scale = 1.0);  // normal
  static Tensor RandomInts(Shape shape, int64_t low, int64_t high, uint64_t seed);    // i32 in [low, high)
  double at(int64_t i) const;                                                         // any dtype
  void set(int64_t i, double v);
  int64_t size() const { return shape.elements(); }
  TensorRef ref();
};
double MaxAbsDiff(const Tensor& a, const Tensor& b);
double MaxAbs(const Tensor& a);

// `bindings`: by name of input and of state; of a state that is a view, its storage is bound. After the run, updates
// are written back into the state bindings. Outputs and workspaces are NaN before a kernel runs, so holes show.
// overwrite: KernelArgs::overwrite of the accumulating ops. Graphs without collectives need neither mesh nor world;
// with a mesh, bindings are local parts and TensorRefs carry origin and global extent.
struct EvalOptions {
  bool overwrite = true;
  bool in_place = false;  // an output 0 that MayOverwrite an input is computed in that input's storage
  StepScalars scalars{};
  const Mesh* mesh = nullptr;
  World* world = nullptr;
  ThreadPool* pool = nullptr;
  // Another back end: its kernels, on the device where its operands are copied. Null: the CPU's; ops that it has no kernel
  // for are decomposed.
  const KernelTable* kernels = nullptr;
  Device* device = nullptr;
};
// Every value of the graph, by [node][output].
absl::StatusOr<std::vector<std::vector<Tensor>>> Evaluate(const Graph& graph, std::map<std::string, Tensor>& bindings,
                                                          const EvalOptions& options = {});

// Gradient check in float64: builds `fn` on inputs of the given tensors (i32 tensors get no gradient), takes the loss
// sum(outputs * fixed random weights), differentiates it and compares with central differences. Returns the worst error
// |g - g'| / max(1, |g|_max). Outputs of integer dtype are not part of the loss.
using GraphFn = std::function<std::vector<Value>(GraphBuilder&, const std::vector<Value>&)>;
absl::StatusOr<double> GradientError(const GraphFn& fn, const std::vector<Tensor>& inputs,
                                     int max_checks_per_input = 200);

}  // namespace strata::testing
