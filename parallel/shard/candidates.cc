#include "parallel/shard/candidates.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/glob.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "parallel/shard/convert.h"

namespace strata {
namespace {

bool IsReplicated(std::span<const Placement> placements) {
  return std::all_of(placements.begin(), placements.end(), [](Placement p) { return p.is_replicate(); });
}

// Rows whose inputs are all alike.
std::vector<Row> AlikeRows(std::span<const Placement> placements, size_t num_in, size_t num_out) {
  std::vector<Row> rows;
  for (Placement p : placements) {
    rows.push_back({std::vector<Placement>(num_in, p), std::vector<Placement>(num_out, p), -1});
  }
  return rows;
}

std::string Text(std::span<const Placement> placements) {
  return absl::StrJoin(placements, " ", [](std::string* out, Placement p) { *out += ToString(p); });
}

std::string Where(const Node& n) { return n.scope.empty() ? "" : " in " + n.scope; }
// "linear in blocks.0.attn (llama.cc:52)"
std::string Maker(const Node& n) {
  return absl::StrFormat("%s%s (%s:%d)", n.op->name(), Where(n), n.loc.file, n.loc.line);
}

}  // namespace

AxisSites::AxisSites(const ShardFacts& facts, const ChosenLayouts& chosen, int axis)
    : facts_(&facts),
      chosen_(&chosen),
      axis_(axis),
      token_class_(facts.classes.size()),
      sharded_class_(facts.classes.size()) {}

absl::StatusOr<AxisSites> AxisSites::Make(const ShardFacts& facts, const ChosenLayouts& chosen, int axis) {
  AxisSites s(facts, chosen, axis);
  RETURN_IF_ERROR(s.NoteShardedClasses());
  for (NodeId id = 0; id < static_cast<NodeId>(facts.graph.nodes.size()); ++id) RETURN_IF_ERROR(s.AddNode(id));
  for (const auto& [name, v] : facts.graph.outputs) RETURN_IF_ERROR(s.AddOutput(name, v));
  for (const auto& [id, values] : facts.state_values) {
    if (values.size() > 1) RETURN_IF_ERROR(s.AddState(id));
  }
  return s;
}

// "" if dim p.dim of a tensor that has layout `outer` on the axes solved before divides by this axis too.
std::string AxisSites::WhyIllegal(Value v, Placement p, const Layout& outer) const {
  if (!p.is_shard()) return "";
  const Shape& shape = facts_->graph.spec(v).shape;
  Layout layout = outer;
  layout[axis_] = p;
  return std::string(LocalBoxOf(shape, layout, facts_->mesh).status().message());
}

// Rule: an axis shards only those dims of the graph's inputs, and what derives from them, that its pins name.
std::string AxisSites::WhyIllegal(NodeId id, const ShardRule& rule) const {
  const Node& n = facts_->graph.nodes[id];
  const auto check = [this](Value v, Placement p, const Layout& outer) -> std::string {
    if (!p.is_shard()) return "";
    const int c = facts_->classes.Of(v, p.dim);
    if (token_class_[c] && !sharded_class_[c]) return absl::StrFormat("no pin shards dim %d on this axis", p.dim);
    return WhyIllegal(v, p, outer);
  };
  for (size_t k = 0; k < rule.in.size(); ++k) {
    std::string why = check(n.inputs[k], rule.in[k], chosen_->in[id][k]);
    if (!why.empty()) return why;
  }
  for (size_t k = 0; k < rule.out.size(); ++k) {
    std::string why = check({id, static_cast<int32_t>(k)}, rule.out[k], chosen_->out[id][k]);
    if (!why.empty()) return why;
  }
  return "";
}

std::string AxisSites::IllegalRules(NodeId id) const {
  std::string text;
  for (const ShardRule& rule : facts_->rules[id]) {
    const std::string why = WhyIllegal(id, rule);
    if (!why.empty()) absl::StrAppendFormat(&text, "; not (%s)->(%s): %s", Text(rule.in), Text(rule.out), why);
  }
  return text;
}

absl::StatusOr<const Pin*> AxisSites::PinOf(const std::string& name, const TensorSpec& spec,
                                            const Layout& outer) const {
  const MeshAxis& axis = facts_->mesh.axes()[axis_];
  const Pin* pin = FindPin(facts_->pins, name, axis.name);
  if (pin == nullptr || !pin->placement.is_shard()) return pin;
  Layout layout = outer;
  layout[axis_] = pin->placement;
  if (const absl::Status s = LocalBoxOf(spec.shape, layout, facts_->mesh).status(); !s.ok()) {
    return absl::InvalidArgumentError(absl::StrFormat("%s %s is pinned %s on %s by \"%s\": %s", name,
                                                      ToString(spec.shape), ToString(pin->placement), axis.name,
                                                      pin->pattern, s.message()));
  }
  return pin;
}

absl::StatusOr<const Pin*> AxisSites::PinOf(Value v) const {
  const auto it = facts_->names.find(v);
  if (it == facts_->names.end()) return nullptr;
  for (const std::string& name : it->second) {
    ASSIGN_OR_RETURN(const Pin* pin, PinOf(name, facts_->graph.spec(v), chosen_->out[v.node][v.output]));
    if (pin != nullptr) return pin;
  }
  return nullptr;
}

// A gradient accumulator follows its parameter: sharded as it is, else left replicated or unreduced. Other states are
// as pinned; buffers that a segment adds to may also be left unreduced.
absl::StatusOr<std::vector<Placement>> AxisSites::StatePlacements(StateId id) const {
  const State& s = facts_->graph.states[id];
  const std::vector<Placement> sums = {Replicate(), Partial()};
  if (facts_->param_of[id] >= 0) {
    ASSIGN_OR_RETURN(std::vector<Placement> param, StatePlacements(facts_->param_of[id]));
    return param[0].is_shard() ? param : sums;
  }
  const auto reads = facts_->state_values.find(id);
  const Value read = reads == facts_->state_values.end() ? Value{} : reads->second[0];
  const Layout outer = read.valid() ? chosen_->out[read.node][read.output] : Layout{};
  ASSIGN_OR_RETURN(const Pin* pin, PinOf(s.name, s.spec, outer));
  if (pin != nullptr) return std::vector<Placement>{pin->placement};
  return s.role == Role::kBuffer && facts_->is_updated[id] ? sums : std::vector<Placement>{Replicate()};
}

absl::Status AxisSites::NoteShardedClasses() {
  const Graph& graph = facts_->graph;
  const auto note = [this](Value v, Placement p) {
    if (p.is_shard()) sharded_class_[facts_->classes.Of(v, p.dim)] = true;
  };
  for (const auto& [name, v] : graph.inputs) {
    for (int d = 0; d < graph.spec(v).shape.rank; ++d) token_class_[facts_->classes.Of(v, d)] = true;
    ASSIGN_OR_RETURN(const Pin* pin, PinOf(name, graph.spec(v), chosen_->out[v.node][0]));
    if (pin != nullptr) note(v, pin->placement);
  }
  for (const auto& [v, names] : facts_->names) {
    ASSIGN_OR_RETURN(const Pin* pin, PinOf(v));
    if (pin != nullptr) note(v, pin->placement);
  }
  for (const auto& [id, values] : facts_->state_values) {
    ASSIGN_OR_RETURN(const std::vector<Placement> placements, StatePlacements(id));
    note(values[0], placements[0]);
  }
  return absl::OkStatus();
}

absl::Status AxisSites::AddNode(NodeId id) {
  const Node& n = facts_->graph.nodes[id];
  Site site{Site::Kind::kNode, id, "", n.inputs, {}, facts_->is_accumulator[id], false, false, {}};
  if (const ReadOp* read = AsRead(n); read != nullptr) {
    ASSIGN_OR_RETURN(const std::vector<Placement> placements, StatePlacements(read->state()));
    site.rows = AlikeRows(placements, 0, 1);
  } else if (const InputOp* input = AsInput(n); input != nullptr) {
    ASSIGN_OR_RETURN(const Pin* pin, PinOf(input->input(), n.outputs[0], chosen_->out[id][0]));
    site.rows = AlikeRows(std::vector<Placement>{pin == nullptr ? Replicate() : pin->placement}, 0, 1);
  } else {
    std::vector<const Pin*> pins(n.outputs.size());
    for (size_t k = 0; k < pins.size(); ++k) {
      ASSIGN_OR_RETURN(pins[k], PinOf(Value{id, static_cast<int32_t>(k)}));
      site.pinned |= pins[k] != nullptr;
    }
    for (size_t r = 0; r < facts_->rules[id].size(); ++r) {
      const ShardRule& rule = facts_->rules[id][r];
      bool legal = WhyIllegal(id, rule).empty();
      for (size_t k = 0; k < pins.size(); ++k) legal &= pins[k] == nullptr || pins[k]->placement == rule.out[k];
      if (legal) site.rows.push_back({rule.in, rule.out, static_cast<int>(r)});
    }
  }
  site.free = !site.pinned && site.rows.size() > 1;
  site.taken.resize(n.inputs.size());
  for (const Row& row : site.rows) {
    for (size_t k = 0; k < row.in.size(); ++k) site.taken[k].push_back(row.in[k]);
  }
  sites_.push_back(std::move(site));
  if (!sites_.back().rows.empty()) return absl::OkStatus();
  std::string wanted;
  for (size_t k = 0; k < n.outputs.size(); ++k) {
    ASSIGN_OR_RETURN(const Pin* pin, PinOf(Value{id, static_cast<int32_t>(k)}));
    if (pin != nullptr) wanted = absl::StrFormat(" that makes %s", ToString(pin->placement));
  }
  return absl::InvalidArgumentError(absl::StrFormat("%s:%d: %s%s has no legal row on axis %s%s%s", n.loc.file,
                                                    n.loc.line, n.op->name(), Where(n), facts_->mesh.axes()[axis_].name,
                                                    wanted, IllegalRules(id)));
}

// Losses stay as they are: the step reduces them once. Other outputs are not left unreduced, and shards are not
// gathered.
absl::Status AxisSites::AddOutput(const std::string& name, Value v) {
  const Shape& shape = facts_->graph.spec(v).shape;
  Site site{Site::Kind::kOutput, v.node, name, {v}, {}, false, false, false, {}};
  ASSIGN_OR_RETURN(const Pin* pin, PinOf(name, facts_->graph.spec(v), chosen_->in[sites_.size()][0]));
  std::vector<Placement> wanted;
  if (pin != nullptr) {
    wanted = {pin->placement};
    site.pinned = true;
  } else {
    wanted.push_back(Replicate());
    for (int d = 0; d < shape.rank; ++d) wanted.push_back(Shard(d));
    if (GlobMatches("loss*", name)) wanted.insert(wanted.end(), {Partial(), Partial(ReduceOp::kMax)});
  }
  site.rows = AlikeRows(wanted, 1, 0);
  sites_.push_back(std::move(site));
  return absl::OkStatus();
}

absl::Status AxisSites::AddState(StateId id) {
  const std::vector<Value>& values = facts_->state_values.at(id);
  ASSIGN_OR_RETURN(const std::vector<Placement> placements, StatePlacements(id));
  sites_.push_back({Site::Kind::kState,
                    values[0].node,
                    facts_->graph.states[id].name,
                    values,
                    AlikeRows(placements, values.size(), 0),
                    true,
                    false,
                    false,
                    {}});
  return absl::OkStatus();
}

bool AxisSites::MayFeed(const Site& site, const Row& row, int k, Placement have) const {
  const Placement want = row.in[k];
  if (have == want) return true;
  if (site.direct || !IsConvertible(have, want)) return false;
  const Node& producer = facts_->graph.nodes[site.inputs[k].node];
  if (const ReadOp* read = AsRead(producer); read != nullptr) {  // weights are never converted
    if (facts_->graph.states[read->state()].role == Role::kParam) return false;
  }
  if (site.kind == Site::Kind::kOutput && !site.pinned) {
    return have.is_partial() && want.is_replicate() && !GlobMatches("loss*", site.name);
  }
  if (!site.free) return true;
  // Slices and all-to-alls: of graph inputs and at pins only.
  if (!have.is_partial() && want.is_shard()) return AsInput(producer) != nullptr;
  // No gathering to compute the same everywhere, where the shard could be used as it is.
  const bool usable = std::find(site.taken[k].begin(), site.taken[k].end(), have) != site.taken[k].end();
  return !(have.is_shard() && usable && IsReplicated(row.in) && IsReplicated(row.out));
}

absl::Status AxisSites::NoPlacement(const Site& site, int k) const {
  const Node& n = facts_->graph.nodes[site.node];
  const Value v = site.inputs[k];
  const Node& producer = facts_->graph.nodes[v.node];
  const std::string& axis = facts_->mesh.axes()[axis_].name;
  std::vector<std::string> takes, has;
  for (const Row& row : site.rows) takes.push_back(ToString(row.in[k]));
  for (const Row& row : sites_[v.node].rows) has.push_back(ToString(row.out[v.output]));
  std::string what = absl::StrFormat("%s %s", site.kind == Site::Kind::kOutput ? "output" : "state", site.name);
  if (site.kind == Site::Kind::kNode) {
    std::vector<std::string> shapes;
    for (Value in : n.inputs) shapes.push_back(ToString(facts_->graph.spec(in).shape));
    what = absl::StrFormat("%s(%s)%s", n.op->name(), absl::StrJoin(shapes, ", "), Where(n));
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s:%d: no legal placement on axis %s for %s: operand %d takes {%s}, but %s makes {%s}%s%s", n.loc.file,
      n.loc.line, axis, what, k, absl::StrJoin(takes, ", "), Maker(producer), absl::StrJoin(has, ", "),
      site.kind == Site::Kind::kNode ? IllegalRules(site.node) : "", IllegalRules(v.node)));
}

}  // namespace strata
