#pragma once
// The SSA graph: a value, topologically ordered, immutable once built. Built by GraphBuilder (builder.h).

#include <compare>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/mesh/mesh.h"
#include "core/tensor/tensor.h"

namespace strata {

class Op;

// The shape is GLOBAL before and after sharding; the local one is derived. Checkpoints, printing and every pass read the
// same numbers, and a pass that changes only `layout` cannot corrupt a dimension.
struct TensorSpec {
  DType dtype = DType::kF32;
  Shape shape;
  Layout layout{};
};

struct SourceLoc {  // not std::source_location: clang 14 (clang-tidy, libFuzzer) lacks it
  const char* file = "";
  int line = 0;
  static constexpr SourceLoc Here(const char* f = __builtin_FILE(), int l = __builtin_LINE()) { return {f, l}; }
};

using NodeId = int32_t;
using StateId = int32_t;

struct Value {
  NodeId node = -1;  // -1: no gradient, or poisoned
  int32_t output = 0;
  bool valid() const { return node >= 0; }
  auto operator<=>(const Value&) const = default;
};

enum class Role : uint8_t { kParam, kGrad, kMaster, kMoment1, kMoment2, kBuffer };

// A tensor that outlives a segment. A state may be a view: a range of another state's flat storage (a bucket).
struct State {
  std::string name;  // unique in a job; states of different programs with one name are one tensor
  Role role = Role::kParam;
  TensorSpec spec;
  StateId storage = -1;        // view of this state ...
  int64_t storage_offset = 0;  // ... from this element on, in LOCAL elements of the whole (unsharded) flat state
  Shape model_shape;  // where `spec.shape` is padded at the ends (a vocabulary): what checkpoints hold; else rank 0
};

// F, I, W of a micro-batch (B = I + W); then what runs less often: before a stage is used by several micro-batches, once
// all micro-batches of a stage are done, and once a step.
enum class Phase : uint8_t { kForward, kInputGrad, kWeightGrad, kUnshard, kReduce, kStep };
const char* Name(Phase phase);  // "F", "I", "W", "unshard", "reduce", "step"

struct Node {
  std::shared_ptr<const Op> op;
  std::vector<Value> inputs;
  std::vector<TensorSpec> outputs;
  std::vector<Value> grad_of;  // per output: the forward value it is the gradient of, or none
  Phase phase = Phase::kForward;
  int16_t stage = 0, block = -1;  // pipeline stage; transformer block (unit of buckets, recompute, prefetch)
  int16_t replica = 0;            // of the model, in a bidirectional pipeline
  uint64_t key = 0;               // hash(scope, ordinal): the same after every pass and cut; keys random numbers
  std::string scope;              // "blocks.3.attn.q"
  SourceLoc loc;
};

struct Graph {
  std::vector<Node> nodes;
  std::vector<State> states;
  std::map<std::string, Value> inputs, outputs;
  std::map<std::string, Value> named;  // "blocks.3.residual": what a placement table may pin
  // Writes are edges, so nodes stay pure: at the end of a segment state := value, in place, after every read of the old.
  std::vector<std::pair<StateId, Value>> updates;
  const TensorSpec& spec(Value v) const { return nodes[v.node].outputs[v.output]; }
};

// Order, arity, Infer agrees, one update a state and of its spec. Errors: Internal, naming the node.
absl::Status Verify(const Graph& graph);
// One line a node: "%12 = linear(%3, %5) f32[4, 8, 16] dp:S0 tp:R | F blocks.0.attn.q". Layouts only where `mesh` is given.
std::string Print(const Graph& graph, const Mesh* mesh = nullptr);

// Without the nodes that no output and no update needs (graph inputs stay). `named` keeps what is left.
Graph Prune(const Graph& graph);

}  // namespace strata
