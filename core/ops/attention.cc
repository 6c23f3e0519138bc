#include "core/ops/attention.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

struct Operands {
  const TensorSpec &q, &k, &v, &pos_q, &pos_k;
  std::span<const TensorSpec> starts;  // one or none
};

absl::Status Check(const Operands& in) {
  const Shape &q = in.q.shape, &k = in.k.shape;
  if (!IsFloating(in.q.dtype) || q.rank != 4) return absl::InvalidArgumentError("q must be a floating [B, S, H, D]");
  if (in.k.dtype != in.q.dtype || k.rank != 4 || k[0] != q[0] || k[3] != q[3] || k[2] < 1 || q[2] % k[2] != 0) {
    return absl::InvalidArgumentError("k must be [B, T, Hk, D] like q, with Hk dividing H");
  }
  if (in.v.dtype != in.k.dtype || in.v.shape != k) return absl::InvalidArgumentError("v must be like k");
  if (in.pos_q.dtype != DType::kI32 || in.pos_q.shape != Shape{q[1]} || in.pos_k.dtype != DType::kI32 ||
      in.pos_k.shape != Shape{k[1]}) {
    return absl::InvalidArgumentError("positions must be i32 [S] and [T]");
  }
  if (!in.starts.empty() && (in.starts[0].dtype != DType::kI32 || in.starts[0].shape != Shape{q[0], q[1]})) {
    return absl::InvalidArgumentError("starts must be i32 [B, S]");
  }
  return absl::OkStatus();
}

TensorSpec LseSpec(const TensorSpec& q) { return {AccumulatorOf(q.dtype), {q.shape[0], q.shape[1], q.shape[2]}, {}}; }

// Adds the placement of starts to rules by batch, heads, heads with whole kv, sequence, none.
std::vector<ShardRule> WithStarts(std::vector<ShardRule> rules) {
  const Placement starts[] = {Shard(0), Replicate(), Replicate(), Shard(1), Replicate()};
  for (size_t i = 0; i < rules.size(); ++i) rules[i].in.push_back(starts[i]);
  return rules;
}

class MaskedOp : public Op {
 public:
  explicit MaskedOp(AttentionMask mask) : mask_(mask) {}
  std::string attributes() const override { return mask_ == AttentionMask::kFull ? "full" : ""; }
  AttentionMask mask() const { return mask_; }

 protected:
  // n operands, and starts where there is one more.
  absl::Status ExpectOperands(std::span<const TensorSpec> in, size_t n) const {
    if (in.size() != n + 1) return ExpectArity(in, n);
    if (mask_ == AttentionMask::kCausal) return absl::OkStatus();
    return absl::InvalidArgumentError("only causal attention keeps documents apart");
  }
  // Two products of [S, D] x [D, T] a head, of which causality needs half.
  double ForwardFlops(const Shape& q, const Shape& k) const {
    const double all = 4.0 * static_cast<double>(q.elements()) * static_cast<double>(k[1]);
    return mask_ == AttentionMask::kFull ? all : all / 2;
  }

 private:
  AttentionMask mask_;
};

class AttentionOp final : public MaskedOp {
 public:
  using MaskedOp::MaskedOp;
  std::string_view name() const override { return "attention"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectOperands(in, 5));
    RETURN_IF_ERROR(Check({in[0], in[1], in[2], in[3], in[4], in.subspan(5)}));
    return std::vector<TensorSpec>{{in[0].dtype, in[0].shape, {}}, LseSpec(in[0])};
  }
  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    if (a.grads[1].valid()) return absl::UnimplementedError("attention: lse has no gradient");
    const auto& in = a.inputs;
    const Value starts = in.size() > 5 ? in[5] : Value{};
    const AttentionGrads d = AttentionBwd(a.g, a.grads[0], in[0], in[1], in[2], a.outputs[0], a.outputs[1], in[3],
                                          in[4], mask(), starts, a.node.loc);
    std::vector<Value> grads = {d.dq_BSHD, d.dk_BTHD, d.dv_BTHD};
    grads.resize(in.size());
    return grads;
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const Placement R = Replicate(), b = Shard(0), s = Shard(1), h = Shard(2);
    std::vector<ShardRule> rules = {{{b, b, b, R, R}, {b, b}},
                                    {{h, h, h, R, R}, {h, h}},
                                    {{h, R, R, R, R}, {h, h}},
                                    {{s, R, R, Shard(0), R}, {s, s}},
                                    {{R, R, R, R, R}, {R, R}}};
    return in.size() > 5 ? WithStarts(std::move(rules)) : rules;
  }
  double Flops(std::span<const TensorSpec> in) const override { return ForwardFlops(in[0].shape, in[1].shape); }
};

class AttentionBwdOp final : public MaskedOp {
 public:
  using MaskedOp::MaskedOp;
  std::string_view name() const override { return "attention_bwd"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectOperands(in, 8));
    const TensorSpec &q = in[1], &k = in[2], &v = in[3], &o = in[4], &lse = in[5];
    RETURN_IF_ERROR(Check({q, k, v, in[6], in[7], in.subspan(8)}));
    for (const TensorSpec* t : {&in[0], &o}) {
      if (t->dtype != q.dtype || t->shape != q.shape)
        return absl::InvalidArgumentError("o and its gradient must be like q");
    }
    if (lse.dtype != LseSpec(q).dtype || lse.shape != LseSpec(q).shape) {
      return absl::InvalidArgumentError("lse must be [B, S, H] of the accumulator dtype of q");
    }
    return std::vector<TensorSpec>{{q.dtype, q.shape, {}}, {k.dtype, k.shape, {}}, {k.dtype, k.shape, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const Placement R = Replicate(), P = Partial(), b = Shard(0), s = Shard(1), h = Shard(2);
    std::vector<ShardRule> rules = {{{b, b, b, b, b, b, R, R}, {b, b, b}},
                                    {{h, h, h, h, h, h, R, R}, {h, h, h}},
                                    {{h, h, R, R, h, h, R, R}, {h, P, P}},
                                    {{s, s, R, R, s, s, Shard(0), R}, {s, P, P}},
                                    {{R, R, R, R, R, R, R, R}, {R, R, R}}};
    return in.size() > 8 ? WithStarts(std::move(rules)) : rules;
  }
  double Flops(std::span<const TensorSpec> in) const override { return 2.5 * ForwardFlops(in[1].shape, in[2].shape); }
};

}  // namespace

Value Attention(GraphBuilder& g, Value q, Value k, Value v, Value pos_q, Value pos_k, AttentionMask mask, Value starts,
                SourceLoc loc) {
  std::vector<Value> in = {q, k, v, pos_q, pos_k};
  if (starts.valid()) in.push_back(starts);
  return g.Add(std::make_shared<AttentionOp>(mask), std::move(in), loc)[0];
}

AttentionGrads AttentionBwd(GraphBuilder& g, Value d_o, Value q, Value k, Value v, Value o, Value lse, Value pos_q,
                            Value pos_k, AttentionMask mask, Value starts, SourceLoc loc) {
  std::vector<Value> in = {d_o, q, k, v, o, lse, pos_q, pos_k};
  if (starts.valid()) in.push_back(starts);
  const std::vector<Value> d = g.Add(std::make_shared<AttentionBwdOp>(mask), std::move(in), loc);
  return {d[0], d[1], d[2]};
}

AttentionMask AttentionMaskOf(const Op& op) { return static_cast<const MaskedOp&>(op).mask(); }

}  // namespace strata
