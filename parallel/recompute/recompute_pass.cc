#include "parallel/recompute/recompute_pass.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>

#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/graph/op.h"
#include "core/ops/collective.h"

namespace strata {
namespace {

// What costs little beside the products of its block, and has as large an output.
constexpr std::string_view kCheap[] = {"rms_norm", "layer_norm", "swiglu", "gelu"};

bool IsCheap(const Op& op) { return std::find(std::begin(kCheap), std::end(kCheap), op.name()) != std::end(kCheap); }

std::map<int, Recompute> LevelsOf(const Graph& graph, const RecomputeBlocks& blocks) {
  std::set<int> all;
  for (const Node& n : graph.nodes) {
    if (n.phase == Phase::kForward && n.block >= 0) all.insert(n.block);
  }
  std::map<int, Recompute> levels;
  int i = 0;
  for (int block : all) {
    if (i < blocks.whole + blocks.selective)
      levels[block] = i < blocks.whole ? Recompute::kBlock : Recompute::kSelective;
    ++i;
  }
  return levels;
}

// By node: whether backward nodes of its block compute it again.
std::vector<bool> Redone(const Graph& graph, const RecomputeBlocks& blocks) {
  const std::map<int, Recompute> levels = LevelsOf(graph, blocks);
  std::vector<bool> redone(graph.nodes.size());
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& n = graph.nodes[i];
    const auto level = levels.find(n.block);
    if (n.phase != Phase::kForward || level == levels.end() || n.inputs.empty()) continue;
    redone[i] = level->second == Recompute::kBlock ||
                (n.op->IsView() ? redone[n.inputs[0].node] : IsCheap(*n.op));  // a view would keep its input's bytes
  }
  return redone;
}

class Recomputation {
 public:
  Recomputation(const Graph& old, const RecomputeBlocks& blocks)
      : old_(old), redone_(Redone(old, blocks)), kept_(old.nodes.size()), clones_(old.nodes.size()) {}

  absl::StatusOr<Graph> Run() && {
    g_.mutable_graph().states = old_.states;
    for (NodeId id = 0; id < static_cast<NodeId>(old_.nodes.size()); ++id) {
      const Node& n = old_.nodes[id];
      const bool backward = n.phase == Phase::kInputGrad || n.phase == Phase::kWeightGrad;
      std::vector<Value> inputs;
      for (Value v : n.inputs) inputs.push_back(backward ? ForBackward(v, n.block) : Kept(v));
      const auto same = backward ? cloned_.find(KeyOf(n, inputs)) : cloned_.end();
      kept_[id] = same == cloned_.end() ? Copy(n, std::move(inputs)) : same->second;
      RETURN_IF_ERROR(g_.status());
      for (size_t k = 0; k < n.outputs.size(); ++k) {
        if (n.grad_of[k].valid()) NewNode(kept_[id]).grad_of[k] = Kept(n.grad_of[k]);
      }
    }
    Graph& out = g_.mutable_graph();
    for (const auto& [name, v] : old_.inputs) out.inputs[name] = Kept(v);
    for (const auto& [name, v] : old_.outputs) out.outputs[name] = Kept(v);
    for (const auto& [name, v] : old_.named) out.named[name] = Kept(v);
    for (const auto& [state, v] : old_.updates) out.updates.emplace_back(state, Kept(v));
    SetClonePhases();
    return std::move(g_).Build();
  }

 private:
  Value Kept(Value v) const { return kept_[v.node][v.output]; }
  Node& NewNode(const std::vector<Value>& values) { return g_.mutable_graph().nodes[values[0].node]; }

  // Another block's value is an input of this one, and kept.
  Value ForBackward(Value v, int block) {
    if (!redone_[v.node] || old_.nodes[v.node].block != block) return Kept(v);
    if (clones_[v.node].empty()) {
      const Node& n = old_.nodes[v.node];
      std::vector<Value> inputs;
      for (Value in : n.inputs) inputs.push_back(ForBackward(in, block));
      clones_[v.node] = Copy(n, inputs);
      if (AsCollective(n) != nullptr) cloned_[KeyOf(n, inputs)] = clones_[v.node];
      if (g_.status().ok()) NewNode(clones_[v.node]).phase = Phase::kWeightGrad;
    }
    return clones_[v.node][v.output];
  }

  using Key = std::tuple<std::string, std::string, std::vector<Value>>;
  static Key KeyOf(const Node& n, const std::vector<Value>& inputs) {
    return {std::string(n.op->name()), n.op->attributes(), inputs};
  }

  std::vector<Value> Copy(const Node& n, std::vector<Value> inputs) {
    std::vector<Value> values = g_.Clone(n, std::move(inputs));
    for (size_t k = 0; g_.status().ok() && k < n.outputs.size(); ++k) {
      NewNode(values).outputs[k].layout = n.outputs[k].layout;
    }
    return values;
  }

  // What the input gradient needs must not wait for the weight gradients.
  void SetClonePhases() {
    std::vector<bool> is_clone(g_.graph().nodes.size());
    for (const std::vector<Value>& clone : clones_) {
      if (!clone.empty()) is_clone[clone[0].node] = true;
    }
    std::vector<Node>& nodes = g_.mutable_graph().nodes;
    for (size_t i = nodes.size(); i-- > 0;) {
      for (Value v : nodes[i].inputs) {
        if (is_clone[v.node]) nodes[v.node].phase = std::min(nodes[v.node].phase, nodes[i].phase);
      }
    }
  }

  const Graph& old_;
  const std::vector<bool> redone_;
  GraphBuilder g_;
  std::vector<std::vector<Value>> kept_, clones_;  // by old node: what stands for its outputs; empty: not made
  std::map<Key, std::vector<Value>> cloned_;       // collectives: backward need not gather the same again
};

}  // namespace

absl::StatusOr<Graph> RecomputePass(const Graph& local, const RecomputeBlocks& blocks) {
  if (blocks == RecomputeBlocks{}) return local;
  return Recomputation(local, blocks).Run();
}

}  // namespace strata
