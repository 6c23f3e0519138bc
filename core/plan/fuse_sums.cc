#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/flat.h"
#include "core/ops/fused.h"
#include "core/plan/fuse_steps.h"
#include "core/plan/rewrite.h"

namespace strata {
namespace {

// The gradients that have a kernel which adds them where their sum lies.
constexpr std::pair<std::string_view, std::string_view> kAccumulated[] = {
    {"linear_dw", "linear_dw_acc"}, {"embedding_dw", "embedding_dw_acc"}, {"bias_grad", "bias_grad_acc"}};

// The gradients that `sum` adds up, through adds, in order of their nodes; empty where it adds others too.
std::vector<Value> Summands(const Rewrite& r, const KernelTable& kernels, Value sum) {
  if (r.Users(sum).size() != 1) return {};
  for (const auto& [gradient, kernel] : kAccumulated) {
    if (r.Maker(sum, gradient) != nullptr && kernels.Has(kernel)) return {sum};
  }
  const Node* add = r.Maker(sum, "add");
  if (add == nullptr) return {};
  std::vector<Value> all;
  for (Value v : add->inputs) {
    const std::vector<Value> part = Summands(r, kernels, v);
    if (part.empty()) return {};
    all.insert(all.end(), part.begin(), part.end());
  }
  std::sort(all.begin(), all.end());
  return all;
}

// `total` = acc + sum, each summand added to acc as it is made. Without acc, the first summand is what the others are added to.
void AddInPlace(Rewrite& r, const KernelTable& kernels, Value acc, Value sum, Value total) {
  const std::vector<Value> parts = Summands(r, kernels, sum);
  auto so_far = std::make_shared<Value>();  // of the new graph, as it grows
  for (size_t i = acc.valid() ? 0 : 1; i < parts.size(); ++i) {
    r.At(parts[i].node, [&r, acc, total, parts, i, so_far](GraphBuilder& g) {
      const Node& dw = r.old().nodes[parts[i].node];
      if (!so_far->valid()) *so_far = r.New(acc.valid() ? acc : parts[0]);
      const std::vector<Value> in = r.New(dw.inputs);
      *so_far = dw.op->name() == "linear_dw"   ? LinearDwAcc(g, std::vector{*so_far}, in[0], in[1], i > 0)[0]
                : dw.op->name() == "bias_grad" ? BiasGradAcc(g, std::vector{*so_far}, in[0], i > 0)[0]
                                               : EmbeddingDwAcc(g, *so_far, in[0], in[1], i > 0);
      r.SetLayout(*so_far, r.old().spec(total).layout);
      if (i + 1 == parts.size()) r.Replace(total, *so_far);
    });
  }
}

}  // namespace

absl::StatusOr<Graph> FuseSums(const Graph& old, const KernelTable& kernels) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (AsPack(n) != nullptr) {
      for (Value part : n.inputs) AddInPlace(r, kernels, {}, part, part);
    } else if (n.op->name() == "accumulate" && r.Maker(n.inputs[0], "read") != nullptr &&
               r.Users(n.inputs[0]).size() == 1) {
      AddInPlace(r, kernels, n.inputs[0], n.inputs[1], {id, 0});
    }
  }
  return std::move(r).Run();
}

}  // namespace strata
