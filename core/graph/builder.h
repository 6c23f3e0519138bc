#pragma once
// Builds graphs: used by models, by Vjp and by every pass. Not thread-safe.

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/graph/graph.h"
#include "core/graph/op.h"

namespace strata {

class GraphBuilder {
 public:
  GraphBuilder() = default;
  explicit GraphBuilder(Graph graph);  // appends to an existing graph

  Value Input(std::string name, TensorSpec spec, SourceLoc loc = SourceLoc::Here());
  StateId Declare(State state);                                  // by name; a second declaration must be equal
  Value Read(StateId state, SourceLoc loc = SourceLoc::Here());  // a tied parameter is one state read twice
  void Update(StateId state, Value v);
  // The first failure (Infer, poisoned input) is kept with scope and file:line; from then on every call returns poisoned
  // values, so model code has no error handling.
  std::vector<Value> Add(std::shared_ptr<const Op> op, std::vector<Value> inputs, SourceLoc loc = SourceLoc::Here());
  // As Add, with key, scope, phase, stage, block and loc of `like`; grad_of is not copied (its values are of another graph).
  std::vector<Value> Clone(const Node& like, std::vector<Value> inputs);
  // An optional operand (a gradient that may be zero) is an invalid Value; this is how code asks whether the build failed.
  const absl::Status& status() const { return error_; }

  void Name(std::string name, Value v);    // in the current scope: "blocks.3" + "." + name
  void Output(std::string name, Value v);  // not scoped
  void Push(std::string_view scope, int block = -1);
  void PushLike(const Node& like);  // the absolute scope and block of another node
  void Pop();
  void set_phase(Phase p) { phase_ = p; }
  void Fail(const absl::Status& error, SourceLoc loc = SourceLoc::Here());

  const Graph& graph() const { return graph_; }
  Graph& mutable_graph() { return graph_; }  // passes: layouts, grad_of
  const TensorSpec& spec(Value v) const;     // an empty spec for a poisoned value
  std::string scope() const;
  int block() const { return scopes_.empty() ? -1 : scopes_.back().second; }

  absl::StatusOr<Graph> Build() &&;  // the first error, or a graph that Verify() accepts

 private:
  std::vector<Value> Append(Node node);

  Graph graph_;
  absl::Status error_;
  std::vector<std::pair<std::string, int>> scopes_;  // full scope name, block
  std::map<std::string, int> ordinals_;              // nodes made so far in a scope, for Node::key
  Phase phase_ = Phase::kForward;
};

// The two leaf ops. A read's op names the state; an input's op names the input. They have no kernel: lowering binds them.
class InputOp final : public Op {
 public:
  InputOp(std::string input, TensorSpec spec) : input_(std::move(input)), spec_(spec) {}
  std::string_view name() const override { return "input"; }
  std::string attributes() const override { return input_; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec>) const override;
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
  const std::string& input() const { return input_; }

 private:
  std::string input_;
  TensorSpec spec_;
};

class ReadOp final : public Op {
 public:
  ReadOp(StateId state, const State& s) : state_(state), state_name_(s.name), spec_(s.spec) {}
  std::string_view name() const override { return "read"; }
  std::string attributes() const override { return state_name_; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec>) const override;
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
  StateId state() const { return state_; }

 private:
  StateId state_;
  std::string state_name_;
  TensorSpec spec_;
};

// Null where the node is of another kind.
const InputOp* AsInput(const Node& node);
const ReadOp* AsRead(const Node& node);

}  // namespace strata
