#pragma once
// One walk over a graph that puts other nodes in the place of some: the base of passes on local graphs. Layouts are kept.

#include <functional>
#include <map>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/graph/builder.h"

namespace strata {

class Rewrite {
 public:
  explicit Rewrite(const Graph& old);

  // What reads a value of the old graph.
  const std::vector<NodeId>& Users(Value v) const;
  // The node that makes v if its op has this name, else null; likewise the only reader of v, where nothing else, no output
  // and no update needs v.
  const Node* Maker(Value v, std::string_view op) const;
  NodeId OnlyUser(Value v) const;  // -1: none, or several
  NodeId OnlyUser(Value v, std::string_view op) const;
  // The first reader of v with this name that reads `inputs` at inputs [first, ...); -1: none.
  NodeId Reader(Value v, std::string_view op, std::span<const Value> inputs, size_t first) const;

  // Before the old node `id` is copied, `emit` runs with that node's scope, phase and block. It makes new nodes from New()
  // values and says with Replace() what they stand for. Old nodes that nothing needs any more are left out.
  using Emit = std::function<void(GraphBuilder&)>;
  void At(NodeId id, Emit emit);
  Value New(Value old);  // what lies ahead is copied on demand, with what it reads
  std::vector<Value> New(std::span<const Value> old);
  // `fresh`, with the layout of `old`, stands for `old` from here on.
  void Replace(Value old, Value fresh);
  void SetLayout(Value fresh, const Layout& layout);

  absl::StatusOr<Graph> Run() &&;

  const Graph& old() const { return old_; }

 private:
  void Copy(NodeId id);

  const Graph& old_;
  GraphBuilder g_;
  std::map<Value, std::vector<NodeId>> users_;  // an output or an update counts as reader -1
  std::map<NodeId, std::vector<Emit>> emits_;
  std::map<Value, Value> map_;
  NodeId at_ = -1;  // the old node that is being copied
};

}  // namespace strata
