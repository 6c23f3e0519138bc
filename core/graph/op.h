#pragma once
// An op is mathematics: shapes, gradient, sharding rules. How it runs is a kernel's business (core/exec/device.h).
// An op is called as a free function: Value RmsNorm(GraphBuilder&, Value x_BSE, Value weight_E, double eps, SourceLoc = Here());

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/graph/graph.h"

namespace strata {

class GraphBuilder;

struct ExpandArgs {
  GraphBuilder& g;
  const Node& node;
  std::span<const Value> inputs;
  int axis;
};

// One row = one way to compute the op on ONE mesh axis; axes are independent. linear: {S0,R}->{S0}; {R,S1}->{S1};
// {S1,S0}->{P}; {P,R}->{P}. A row with `expand` is not local: it emits the nodes, collectives included, that replace the
// op (ring attention on cp, expert dispatch). The all-Replicate row must be listed too where it is legal.
struct ShardRule {
  std::vector<Placement> in, out;
  std::function<absl::StatusOr<std::vector<Value>>(const ExpandArgs&)> expand{};
};

struct VjpArgs {
  GraphBuilder& g;
  const Node& node;
  std::span<const Value> inputs, outputs, grads;  // grads: d loss / d outputs; an invalid Value is zero
};

class Op {  // immutable; shared between graphs and threads
 public:
  virtual ~Op() = default;
  virtual std::string_view name() const = 0;
  virtual std::string attributes() const { return ""; }  // "eps=1e-5"; printed and golden-tested
  // Output specs; ignores layouts and leaves them Replicate. Errors: InvalidArgument names shapes.
  virtual absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const = 0;
  // One gradient per input; an invalid Value where there is none (integers). Default: the vjp of Decompose().
  virtual absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& args) const;
  // In order of preference: ties in cost break on this order.
  virtual std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const = 0;
  // Fused ops: the same maths in plain ops. Reference vjp, fused = plain test, and fallback where a kernel is missing.
  // Unimplemented for plain ops.
  virtual absl::StatusOr<std::vector<Value>> Decompose(GraphBuilder& g, std::span<const Value> in) const;
  // Input whose storage this output must share: an accumulation (C += A B), or a view. -1: none.
  virtual int Aliases(int /*output*/) const { return -1; }
  // The output is its aliased input's bytes under another shape: no kernel runs.
  virtual bool IsView() const { return false; }
  // Output 0 may be written over this input where nothing reads the input later: kernels read each element before they
  // write it.
  virtual bool MayOverwrite(int /*input*/) const { return false; }
  // Matmul and attention work, for the shard pass's choice; 0 for all other ops.
  virtual double Flops(std::span<const TensorSpec> /*in*/) const { return 0; }
};

// Rows of an elementwise op: all operands Shard(d) for each d in [0, rank), then all Replicate.
std::vector<ShardRule> ElementwiseRules(int rank, int num_in, int num_out);

}  // namespace strata
