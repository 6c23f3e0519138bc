#pragma once
// What may be chosen on one mesh axis: for every site of a graph the rows that are legal there, and which conversions
// may stand between them. The hard rules of the pass live here.

#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/graph/graph.h"
#include "core/graph/op.h"
#include "parallel/shard/dim_class.h"
#include "parallel/shard/pins.h"

namespace strata {

// A way to use the inputs and make the outputs of a site on one axis; `rule` is its index in the op's ShardRules.
struct Row {
  std::vector<Placement> in, out;
  int rule = -1;
};

// A place where a choice is made: a node, a graph output (it only reads), or a state, whose reads and update must
// agree.
struct Site {
  enum class Kind : uint8_t { kNode, kOutput, kState } kind = Kind::kNode;
  NodeId node = -1;  // kNode; for outputs and states the node that makes inputs[0]
  std::string name;  // of the output or state
  std::vector<Value> inputs;
  std::vector<Row> rows;  // in order of preference
  bool direct = false;    // takes its inputs as they are
  bool pinned = false;    // a pin names its result: replicated values may be sliced here, shards gathered
  bool free = false;      // not pinned, and more than one row is legal
  std::vector<std::vector<Placement>> taken;  // by input: what the rows take, before any row is dropped
};

// What the pass knows before it solves an axis. Graph, mesh and pins must outlive it.
struct ShardFacts {
  ShardFacts(const Graph& graph, const Mesh& mesh, std::span<const Pin> pins);

  const Graph& graph;
  const Mesh& mesh;
  std::span<const Pin> pins;
  std::vector<std::vector<ShardRule>> rules;  // by node
  DimClasses classes;
  std::map<Value, std::vector<std::string>> names;     // of named values and of their gradients
  std::map<StateId, std::vector<Value>> state_values;  // of states: all reads, then the value that updates it
  std::vector<bool> is_updated, is_accumulator;        // by state; by node: the sum that updates a gradient
  std::vector<StateId> param_of;                       // by state: of "grad.<name>", the state <name>; else -1
};

// Placements chosen so far, by site and slot; on axes that are not solved yet, Replicate.
struct ChosenLayouts {
  std::vector<std::vector<Layout>> in, out;
};

// One axis: its sites (a node each, in order, then outputs, then states) and what they may do.
class AxisSites {
 public:
  // Errors: InvalidArgument: a pin does not fit its tensor, or a site has no legal row.
  static absl::StatusOr<AxisSites> Make(const ShardFacts& facts, const ChosenLayouts& chosen, int axis);

  const ShardFacts& facts() const { return *facts_; }
  int axis() const { return axis_; }
  int axis_size() const { return facts_->mesh.axes()[axis_].size; }
  std::vector<Site>& sites() { return sites_; }
  const std::vector<Site>& sites() const { return sites_; }
  // Whether input k of `site`, used by `row`, may be made from a value that is `have`.
  bool MayFeed(const Site& site, const Row& row, int k, Placement have) const;
  // InvalidArgument "no legal placement ...": value inputs[k] of `site` cannot be had as any of its rows want it.
  absl::Status NoPlacement(const Site& site, int k) const;

 private:
  AxisSites(const ShardFacts& facts, const ChosenLayouts& chosen, int axis);
  absl::Status AddNode(NodeId id);
  absl::Status AddOutput(const std::string& name, Value v);
  absl::Status AddState(StateId id);
  absl::StatusOr<const Pin*> PinOf(Value v) const;
  absl::StatusOr<const Pin*> PinOf(const std::string& name, const TensorSpec& spec, const Layout& outer) const;
  absl::StatusOr<std::vector<Placement>> StatePlacements(StateId id) const;
  absl::Status NoteShardedClasses();
  std::string WhyIllegal(NodeId id, const ShardRule& rule) const;
  std::string WhyIllegal(Value v, Placement p, const Layout& outer) const;
  std::string IllegalRules(NodeId id) const;

  const ShardFacts* facts_;
  const ChosenLayouts* chosen_;
  int axis_;
  std::vector<Site> sites_;
  std::vector<bool> token_class_, sharded_class_;  // has a dim of a graph input; a pin shards it on this axis
};

}  // namespace strata
