#include "core/graph/builder.h"

#include "absl/strings/str_format.h"
#include "core/base/philox.h"

namespace strata {

absl::StatusOr<std::vector<TensorSpec>> InputOp::Infer(std::span<const TensorSpec>) const { return std::vector{spec_}; }
absl::StatusOr<std::vector<TensorSpec>> ReadOp::Infer(std::span<const TensorSpec>) const { return std::vector{spec_}; }
const InputOp* AsInput(const Node& node) { return dynamic_cast<const InputOp*>(node.op.get()); }
const ReadOp* AsRead(const Node& node) { return dynamic_cast<const ReadOp*>(node.op.get()); }

GraphBuilder::GraphBuilder(Graph graph) : graph_(std::move(graph)) {
  for (const Node& n : graph_.nodes) ++ordinals_[n.scope];
}

std::string GraphBuilder::scope() const { return scopes_.empty() ? "" : scopes_.back().first; }

const TensorSpec& GraphBuilder::spec(Value v) const {
  static const TensorSpec kNone;
  return v.valid() ? graph_.spec(v) : kNone;
}

void GraphBuilder::Fail(const absl::Status& error, SourceLoc loc) {
  if (!error_.ok() || error.ok()) return;
  const std::string where = scope().empty() ? "" : " in " + scope();
  error_ = absl::Status(error.code(), absl::StrFormat("%s:%d: %s%s", loc.file, loc.line, error.message(), where));
}

std::vector<Value> GraphBuilder::Append(Node node) {
  const NodeId id = static_cast<NodeId>(graph_.nodes.size());
  node.grad_of.resize(node.outputs.size());
  std::vector<Value> values;
  for (size_t i = 0; i < node.outputs.size(); ++i) values.push_back({id, static_cast<int32_t>(i)});
  graph_.nodes.push_back(std::move(node));
  return values;
}

std::vector<Value> GraphBuilder::Add(std::shared_ptr<const Op> op, std::vector<Value> inputs, SourceLoc loc) {
  Node node;
  node.phase = phase_;
  node.block = static_cast<int16_t>(block());
  node.scope = scope();
  node.key = HashName(std::to_string(ordinals_[node.scope]++), HashName(node.scope));
  node.loc = loc;
  node.op = std::move(op);
  return Clone(node, std::move(inputs));
}

std::vector<Value> GraphBuilder::Clone(const Node& like, std::vector<Value> inputs) {
  Node node = like;
  std::vector<TensorSpec> specs;
  for (Value v : inputs) {
    if (!v.valid() && error_.ok()) {
      Fail(absl::InternalError(absl::StrFormat("%s: an operand is missing", like.op->name())), like.loc);
    }
    specs.push_back(spec(v));
  }
  constexpr size_t kManyOutputs = 8;  // poisoned: more than any op has, so callers may index
  if (!error_.ok()) return std::vector<Value>(std::max(kManyOutputs, like.outputs.size()));
  absl::StatusOr<std::vector<TensorSpec>> outputs = like.op->Infer(specs);
  if (!outputs.ok()) {
    std::string shapes;
    for (const TensorSpec& s : specs) shapes += absl::StrFormat(" %s%s", strata::Name(s.dtype), ToString(s.shape));
    scopes_.emplace_back(like.scope, like.block);
    Fail(absl::Status(outputs.status().code(),
                      absl::StrFormat("%s(%s ): %s", like.op->name(), shapes, outputs.status().message())),
         like.loc);
    scopes_.pop_back();
    return std::vector<Value>(std::max(kManyOutputs, like.outputs.size()));
  }
  node.outputs = *std::move(outputs);
  node.inputs = std::move(inputs);
  node.grad_of.clear();
  return Append(std::move(node));
}

Value GraphBuilder::Input(std::string name, TensorSpec spec, SourceLoc loc) {
  if (graph_.inputs.contains(name)) {
    Fail(absl::InternalError(absl::StrFormat("input %s is declared twice", name)), loc);
    return {};
  }
  const Value v = Add(std::make_shared<InputOp>(name, spec), {}, loc)[0];
  graph_.inputs[std::move(name)] = v;
  return v;
}

StateId GraphBuilder::Declare(State state) {
  for (size_t i = 0; i < graph_.states.size(); ++i) {
    const State& s = graph_.states[i];
    if (s.name != state.name) continue;
    if (s.spec.shape != state.spec.shape || s.spec.dtype != state.spec.dtype || s.role != state.role) {
      Fail(absl::InternalError(absl::StrFormat("state %s is declared twice with different specs", s.name)));
    }
    return static_cast<StateId>(i);
  }
  graph_.states.push_back(std::move(state));
  return static_cast<StateId>(graph_.states.size()) - 1;
}

Value GraphBuilder::Read(StateId state, SourceLoc loc) {
  return Add(std::make_shared<ReadOp>(state, graph_.states[state]), {}, loc)[0];
}

void GraphBuilder::Update(StateId state, Value v) { graph_.updates.emplace_back(state, v); }

void GraphBuilder::Name(std::string name, Value v) {
  graph_.named[scope().empty() ? std::move(name) : scope() + "." + name] = v;
}
void GraphBuilder::Output(std::string name, Value v) { graph_.outputs[std::move(name)] = v; }

void GraphBuilder::Push(std::string_view name, int block_index) {
  const std::string outer = scope();
  scopes_.emplace_back(outer.empty() ? std::string(name) : outer + "." + std::string(name),
                       block_index >= 0 ? block_index : block());
}
void GraphBuilder::PushLike(const Node& like) { scopes_.emplace_back(like.scope, like.block); }
void GraphBuilder::Pop() { scopes_.pop_back(); }

absl::StatusOr<Graph> GraphBuilder::Build() && {
  if (!error_.ok()) return error_;
  if (absl::Status s = Verify(graph_); !s.ok()) return s;
  return std::move(graph_);
}

}  // namespace strata
