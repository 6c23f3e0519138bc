#include <algorithm>

#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/fused.h"
#include "core/ops/move.h"
#include "core/plan/fuse_packed.h"
#include "core/plan/fuse_steps.h"

namespace strata {
namespace {

struct Attended {  // an attention whose operands come from one packed product
  Packed p;
  NodeId fwd = -1, bwd = -1;
  Value positions, starts;     // starts: none, or of each token's document
  const Node* rope = nullptr;  // of q; null: none
  const Node* rope_bwd = nullptr;
};

// The product behind an operand of attention: through its rope, if there is one, and the split into heads.
Value ProductOf(const Rewrite& r, Value operand, const Node*& rope) {
  rope = r.Maker(operand, "rope");
  const Value heads = rope != nullptr ? rope->inputs[0] : operand;
  const Node* split = r.Maker(heads, "split_dim");
  return split != nullptr ? split->inputs[0] : Value{};
}

// The gradient of a product, from that of the operand: through the inverse rope and the merging of heads.
Value GradOf(const Rewrite& r, Value grad, bool turned, const Node*& rope) {
  if (turned) {
    const NodeId id = r.OnlyUser(grad, "rope");
    if (id < 0) return {};
    rope = &r.old().nodes[id];
    grad = {id, 0};
  }
  const NodeId merge = r.OnlyUser(grad, "merge_dims");
  return merge < 0 ? Value{} : Value{merge, 0};
}

std::optional<Attended> MatchAttention(const Rewrite& r, const Mesh& mesh, NodeId id) {
  const Graph& old = r.old();
  const Node& n = old.nodes[id];
  if (n.inputs[3] != n.inputs[4]) return std::nullopt;
  Attended a{.fwd = id, .positions = n.inputs[3]};
  if (n.inputs.size() > 5) a.starts = n.inputs[5];
  const Node *rope[3] = {}, *rope_bwd[3] = {};
  std::vector<Value> products;
  for (int i = 0; i < 3; ++i) {
    products.push_back(ProductOf(r, n.inputs[i], rope[i]));
    if (!products.back().valid()) return std::nullopt;
  }
  a.rope = rope[0];
  if ((rope[0] == nullptr) != (rope[1] == nullptr) || rope[2] != nullptr) return std::nullopt;
  if (a.rope != nullptr &&
      (rope[0]->inputs[1] != rope[1]->inputs[1] || RopeAttributesOf(*rope[0]->op) != RopeAttributesOf(*rope[1]->op))) {
    return std::nullopt;
  }
  std::optional<Packed> p = MatchForward(r, mesh, products);
  if (!p) return std::nullopt;
  a.p = *std::move(p);
  a.bwd = r.Reader(n.inputs[0], "attention_bwd", std::span(n.inputs).first(3), 1);
  const size_t uses = a.bwd >= 0 ? 2 : 1;
  for (int i = 0; i < 3; ++i) {
    if (r.Users(n.inputs[i]).size() != uses) return std::nullopt;
  }
  if (a.bwd < 0) return a;
  std::vector<Value> grads;
  for (int i = 0; i < 3; ++i) {
    grads.push_back(GradOf(r, {a.bwd, i}, rope[i] != nullptr, rope_bwd[i]));
    if (!grads.back().valid()) return std::nullopt;
  }
  a.rope_bwd = rope_bwd[0];
  if (!MatchBackward(r, mesh, grads, a.p)) return std::nullopt;
  return a;
}

// The inverse ropes of dq and dk of an attention_bwd, where these are alike and all that is made of dq and dk.
struct Turns {
  NodeId q = -1, k = -1;
};
std::optional<Turns> MatchTurns(const Rewrite& r, NodeId bwd) {
  const Turns t{r.OnlyUser({bwd, 0}, "rope"), r.OnlyUser({bwd, 1}, "rope")};
  if (t.q < 0 || t.k < 0) return std::nullopt;
  const Node &q = r.old().nodes[t.q], &k = r.old().nodes[t.k];
  const bool alike = q.inputs[1] == k.inputs[1] && RopeAttributesOf(*q.op) == RopeAttributesOf(*k.op);
  return alike ? std::optional(t) : std::nullopt;
}

}  // namespace

absl::StatusOr<Graph> FuseAttention(const Graph& old, const Mesh& mesh) {
  Rewrite r(old);
  JoinedParts joined;
  const auto matches = MatchAlike<Attended>(old, "attention", [&](NodeId id) { return MatchAttention(r, mesh, id); });
  for (const auto& [id, match] : matches) {
    const Node& n = old.nodes[id];
    const Shape q = old.spec(n.inputs[0]).shape;
    const int64_t group = q[2] / old.spec(n.inputs[1]).shape[2], head_dim = q[3];
    const AttentionMask mask = AttentionMaskOf(*n.op);
    const Layout heads = old.spec(n.inputs[0]).layout;
    auto qkv = std::make_shared<Value>();
    r.At(id, [&r, a = match, qkv, heads, head_dim, mask, group, id = id](GraphBuilder& g) {
      if (a.rope != nullptr && a.p.biases.empty()) {
        *qkv = LinearRope(g, r.New(a.p.x), r.New(a.rope->inputs[1]), r.New(a.p.weights), RopeAttributesOf(*a.rope->op),
                          group, head_dim);
      } else {
        *qkv = SplitDim(g, EmitForward(r, g, a.p), 2, head_dim);
        r.SetLayout(*qkv, heads);
        if (a.rope != nullptr) {
          *qkv = RopePacked(g, *qkv, r.New(a.rope->inputs[1]), RopeAttributesOf(*a.rope->op), group);
        }
      }
      r.SetLayout(*qkv, heads);
      const PackedAttention out = AttentionPacked(g, *qkv, r.New(a.positions), mask, group, r.New(a.starts));
      r.Replace({id, 0}, out.o_BSHD);
      r.Replace({id, 1}, out.lse_BSH);
    });
    if (match.bwd < 0) continue;
    EmitBackward(r, joined, match.p, match.bwd, [&r, a = match, qkv, heads, mask, group](GraphBuilder& g) {
      const std::vector<Value>& in = r.old().nodes[a.bwd].inputs;  // do, q, k, v, o, lse, positions
      const Value d_o = r.New(in[0]), o = r.New(in[4]), lse = r.New(in[5]), positions = r.New(a.positions),
                  starts = r.New(a.starts);
      const Value d = a.rope_bwd == nullptr
                          ? AttentionPackedBwd(g, d_o, *qkv, o, lse, positions, mask, group, starts)
                          : AttentionRopeBwd(g, d_o, *qkv, o, lse, positions, r.New(a.rope_bwd->inputs[1]), mask,
                                             RopeAttributesOf(*a.rope_bwd->op), group, starts);
      r.SetLayout(d, heads);
      return MergeDims(g, d, 2);
    });
  }
  joined.Emit(r);
  return std::move(r).Run();
}

absl::StatusOr<Graph> FuseHeads(const Graph& old, const KernelTable& kernels) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (n.op->name() != "attention" || n.inputs[3] != n.inputs[4]) continue;
    const TensorSpec &q = old.spec(n.inputs[0]), &k = old.spec(n.inputs[1]), &v = old.spec(n.inputs[2]);
    if (k.layout != q.layout || v.layout != q.layout || !kernels.Find("heads_packed", q.dtype).ok()) continue;
    const auto pack = [&r, layout = q.layout](GraphBuilder& g, std::span<const Value> qkv) {
      const Value packed = HeadsPacked(g, r.New(qkv[0]), r.New(qkv[1]), r.New(qkv[2]));
      r.SetLayout(packed, layout);
      return packed;
    };
    const AttentionMask mask = AttentionMaskOf(*n.op);
    const int64_t group = q.shape[2] / k.shape[2];
    const Value starts = n.inputs.size() > 5 ? n.inputs[5] : Value{};
    auto packed = std::make_shared<Value>();
    r.At(id, [&r, &n, id, pack, packed, mask, group, starts](GraphBuilder& g) {
      *packed = pack(g, n.inputs);
      const PackedAttention out = AttentionPacked(g, *packed, r.New(n.inputs[3]), mask, group, r.New(starts));
      r.Replace({id, 0}, out.o_BSHD);
      r.Replace({id, 1}, out.lse_BSH);
    });
    const NodeId bwd = r.Reader({id, 0}, "attention_bwd", std::vector{Value{id, 0}, Value{id, 1}}, 4);
    if (bwd < 0) continue;
    const std::optional<Turns> turns = kernels.Has("attention_rope_bwd") ? MatchTurns(r, bwd) : std::nullopt;
    r.At(bwd, [&r, &n, bwd, pack, packed, mask, group, starts, turns, layout = q.layout](GraphBuilder& g) {
      const std::span<const Value> in = r.old().nodes[bwd].inputs;                     // do, q, k, v, o, lse, positions
      const bool same = std::equal(in.begin() + 1, in.begin() + 4, n.inputs.begin());  // else they are recomputed
      const Value qkv = same ? *packed : pack(g, in.subspan(1, 3));
      const Value d_o = r.New(in[0]), o = r.New(in[4]), lse = r.New(in[5]), positions = r.New(n.inputs[3]);
      const Node* const rope = turns ? &r.old().nodes[turns->q] : nullptr;
      const Value d = rope == nullptr ? AttentionPackedBwd(g, d_o, qkv, o, lse, positions, mask, group, r.New(starts))
                                      : AttentionRopeBwd(g, d_o, qkv, o, lse, positions, r.New(rope->inputs[1]), mask,
                                                         RopeAttributesOf(*rope->op), group, r.New(starts));
      r.SetLayout(d, layout);
      const SplitHeads grads = HeadsUnpacked(g, d, group);
      r.Replace(turns ? Value{turns->q, 0} : Value{bwd, 0}, grads.q_BSHD);
      r.Replace(turns ? Value{turns->k, 0} : Value{bwd, 1}, grads.k_BSHD);
      r.Replace({bwd, 2}, grads.v_BSHD);
    });
  }
  return std::move(r).Run();
}

}  // namespace strata
