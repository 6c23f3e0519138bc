#include "core/ops/cross_entropy.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/elementwise.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

// An operand's kind fixes its shape and dtype, and with them its placement in every sharding rule.
enum Kind : char {
  kLogits = 'z',  // [B, S, V]
  kToken = 't',   // [B, S] of the accumulator dtype
  kTarget = 'i',  // [B, S] i32
  kScalar = 's',  // [] of the accumulator dtype
};

struct Piece {
  const char* name;
  std::string_view in, out;  // kinds
  ReduceOp over_vocab;       // joins the token outputs of vocabulary shards
  absl::StatusOr<std::vector<Value>> (*vjp)(const VjpArgs&);
  absl::StatusOr<std::vector<Value>> (*decompose)(GraphBuilder&, std::span<const Value>);
};

class CrossEntropyOp final : public Op {
 public:
  explicit CrossEntropyOp(const Piece& piece) : piece_(piece) {}
  std::string_view name() const override { return piece_.name; }
  bool MayOverwrite(int input) const override {
    return input == 0 && piece_.in[0] == kLogits && piece_.out[0] == kLogits;
  }

  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, piece_.in.size()));
    const TensorSpec& first = in[0];
    const bool from_logits = piece_.in[0] == kLogits;
    if (!IsFloating(first.dtype) || first.shape.rank != (from_logits ? 3 : 2)) {
      return absl::InvalidArgumentError(from_logits ? "logits must be a floating [B, S, V]"
                                                    : "operands must be [B, S]");
    }
    for (size_t i = 0; i < in.size(); ++i) {
      const TensorSpec want = SpecOf(piece_.in[i], first);
      if (in[i].dtype != want.dtype || in[i].shape != want.shape) {
        return absl::InvalidArgumentError(
            absl::StrFormat("operand %d must be %s%s", i, Name(want.dtype), ToString(want.shape)));
      }
    }
    std::vector<TensorSpec> out;
    for (char kind : piece_.out) out.push_back(SpecOf(kind, first));
    return out;
  }

  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override {
    std::vector<ShardRule> rules;
    for (int dim : {0, 1}) {
      ShardRule& rule = rules.emplace_back();
      for (char kind : piece_.in) rule.in.push_back(kind == kScalar ? Replicate() : Shard(dim));
      for (char kind : piece_.out) rule.out.push_back(kind == kScalar ? Partial() : Shard(dim));
    }
    if (piece_.in[0] == kLogits) {
      ShardRule& rule = rules.emplace_back();
      for (char kind : piece_.in) rule.in.push_back(kind == kLogits ? Shard(2) : Replicate());
      for (char kind : piece_.out) rule.out.push_back(kind == kLogits ? Shard(2) : Partial(piece_.over_vocab));
    }
    rules.push_back({std::vector(piece_.in.size(), Replicate()), std::vector(piece_.out.size(), Replicate())});
    return rules;
  }

  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& args) const override {
    return piece_.vjp != nullptr ? piece_.vjp(args) : Op::Vjp(args);
  }
  absl::StatusOr<std::vector<Value>> Decompose(GraphBuilder& g, std::span<const Value> in) const override {
    return piece_.decompose != nullptr ? piece_.decompose(g, in) : Op::Decompose(g, in);
  }

 private:
  static TensorSpec SpecOf(char kind, const TensorSpec& first) {
    if (kind == kLogits) return first;
    if (kind == kScalar) return {AccumulatorOf(first.dtype), {}, {}};
    return {kind == kTarget ? DType::kI32 : AccumulatorOf(first.dtype), {first.shape[0], first.shape[1]}, {}};
  }
  const Piece& piece_;
};

using Values = std::vector<Value>;

absl::StatusOr<Values> MaxVjp(const VjpArgs&) { return Values{{}}; }
absl::StatusOr<Values> SumExpVjp(const VjpArgs& a) {
  return Values{VocabSumExpDx(a.g, a.inputs[0], a.inputs[1], a.grads[0], a.node.loc), {}};
}
absl::StatusOr<Values> PickVjp(const VjpArgs& a) {
  return Values{VocabPickDx(a.g, a.inputs[0], a.inputs[1], a.grads[0], a.node.loc), {}};
}
absl::StatusOr<Values> NllVjp(const VjpArgs& a) {
  const NllGradients d = NllDx(a.g, a.inputs[1], a.inputs[3], a.grads[0], a.node.loc);
  return Values{{}, d.ds_BS, d.dp_BS, {}};
}

absl::StatusOr<Values> DecomposeSoftmaxGrad(GraphBuilder& g, std::span<const Value> in) {
  const Value z = in[0], m = in[1], s = in[2], targets = in[3], weights = in[4], seed = in[5];
  const NllGradients d = NllDx(g, s, weights, seed);
  return Values{Add(g, VocabSumExpDx(g, z, m, d.ds_BS), VocabPickDx(g, z, targets, d.dp_BS))};
}

constexpr ReduceOp kSum = ReduceOp::kSum, kMax = ReduceOp::kMax;
constexpr Piece kVocabMax = {"vocab_max", "z", "t", kMax, MaxVjp, nullptr};
constexpr Piece kVocabSumExp = {"vocab_sum_exp", "zt", "t", kSum, SumExpVjp, nullptr};
constexpr Piece kVocabPick = {"vocab_pick", "zi", "t", kSum, PickVjp, nullptr};
constexpr Piece kNll = {"nll", "tttt", "s", kSum, NllVjp, nullptr};
constexpr Piece kVocabSumExpDx = {"vocab_sum_exp_dx", "ztt", "z", kSum, nullptr, nullptr};
constexpr Piece kVocabPickDx = {"vocab_pick_dx", "zit", "z", kSum, nullptr, nullptr};
constexpr Piece kNllDx = {"nll_dx", "tts", "tt", kSum, nullptr, nullptr};
constexpr Piece kSoftmaxGrad = {"softmax_grad", "zttits", "z", kSum, nullptr, DecomposeSoftmaxGrad};

Values AddPiece(GraphBuilder& g, const Piece& piece, Values in, SourceLoc loc) {
  return g.Add(std::make_shared<CrossEntropyOp>(piece), std::move(in), loc);
}

}  // namespace

Value VocabMax(GraphBuilder& g, Value z, SourceLoc loc) { return AddPiece(g, kVocabMax, {z}, loc)[0]; }
Value VocabSumExp(GraphBuilder& g, Value z, Value m, SourceLoc loc) {
  return AddPiece(g, kVocabSumExp, {z, m}, loc)[0];
}
Value VocabPick(GraphBuilder& g, Value z, Value targets, SourceLoc loc) {
  return AddPiece(g, kVocabPick, {z, targets}, loc)[0];
}
Value Nll(GraphBuilder& g, Value m, Value s, Value p, Value weights, SourceLoc loc) {
  return AddPiece(g, kNll, {m, s, p, weights}, loc)[0];
}
Value VocabSumExpDx(GraphBuilder& g, Value z, Value m, Value ds, SourceLoc loc) {
  return AddPiece(g, kVocabSumExpDx, {z, m, ds}, loc)[0];
}
Value VocabPickDx(GraphBuilder& g, Value z, Value targets, Value dp, SourceLoc loc) {
  return AddPiece(g, kVocabPickDx, {z, targets, dp}, loc)[0];
}
NllGradients NllDx(GraphBuilder& g, Value s, Value weights, Value seed, SourceLoc loc) {
  const Values d = AddPiece(g, kNllDx, {s, weights, seed}, loc);
  return {d[0], d[1]};
}
Value SoftmaxGrad(GraphBuilder& g, Value z, Value m, Value s, Value targets, Value weights, Value seed, SourceLoc loc) {
  return AddPiece(g, kSoftmaxGrad, {z, m, s, targets, weights, seed}, loc)[0];
}

}  // namespace strata
