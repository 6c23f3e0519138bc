#pragma once
// Products of one x by adjacent weights, found in a local graph and made one: for the steps of FuseOps (fuse_steps.h).

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/graph/op.h"
#include "core/plan/rewrite.h"

namespace strata {

// match(id) of the nodes of an op. Those of one key are one and the same, computed again: bits repeat where all of them are
// fused, or none.
template <typename Match, typename Fn>
std::map<NodeId, Match> MatchAlike(const Graph& g, std::string_view op, const Fn& match) {
  std::map<NodeId, Match> matches;
  std::set<uint64_t> plain;  // keys
  for (NodeId id = 0; id < static_cast<NodeId>(g.nodes.size()); ++id) {
    if (g.nodes[id].op->name() != op) continue;
    if (std::optional<Match> m = match(id)) {
      matches.emplace(id, *std::move(m));
    } else {
      plain.insert(g.nodes[id].key);
    }
  }
  std::erase_if(matches, [&](const auto& m) { return plain.contains(g.nodes[m.first].key); });
  return matches;
}

// Parts of a pack (core/ops/flat.h), one right behind the other.
struct PartRun {
  NodeId pack = -1;
  size_t first = 0, count = 0;
};
// Nothing where the values are not that, in this order, or are read by others too.
std::optional<PartRun> FindPartRun(const Rewrite& r, const Mesh& mesh, std::span<const Value> parts);

// Packs of a rewrite that take one value in place of several parts.
class JoinedParts {
 public:
  void Join(const PartRun& run, std::shared_ptr<const Value> whole) {
    runs_[run.pack][run.first] = {run.count, std::move(whole)};
  }
  void Emit(Rewrite& r) const;  // once, before r runs

 private:
  struct Whole {
    size_t count = 0;
    std::shared_ptr<const Value> value;  // of the new graph, made before the pack
  };
  std::map<NodeId, std::map<size_t, Whole>> runs_;  // by pack and first part
};

// Products whose results differ in nothing but their width, and what the backward makes of them.
struct Packed {
  Value x;
  std::vector<Value> products, weights, biases;  // a product with its bias, where there are biases

  std::vector<Value> grads;       // of products
  std::vector<Value> dx_weights;  // the weights as the backward reads them
  Value dx;                       // the sum of the products' dx
  Value dw_x;                     // the copy of x that dw reads: x, or x recomputed or gathered again
  std::vector<Value> dw;          // sums with accs; without accs, parts of a pack
  std::vector<Value> accs;        // adjacent
  PartRun dw_parts;
  std::vector<Value> bias_grads;      // sums with bias_accs, as dw
  std::vector<Value> bias_accs;       // adjacent
  std::optional<PartRun> bias_parts;  // where they are parts of a pack; else they are of one shape
};

std::optional<Packed> MatchForward(const Rewrite& r, const Mesh& mesh, std::vector<Value> products);
// Finds what is made of `grads`, the gradients of p's products; false where it is not all there.
bool MatchBackward(const Rewrite& r, const Mesh& mesh, std::vector<Value> grads, Packed& p);

// y = x (w1 | w2 | ...)^T
Value EmitForward(Rewrite& r, GraphBuilder& g, const Packed& p);
// Has r make the gradient of y at node `backward`, with dx right after it, as others wait for it; then the gradients of
// weights and biases, where the first of them was.
void EmitBackward(Rewrite& r, JoinedParts& joined, const Packed& p, NodeId backward,
                  std::function<Value(GraphBuilder&)> make_dy);

}  // namespace strata
