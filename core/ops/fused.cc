#include "core/ops/fused.h"

#include <numeric>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/bias.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/infer.h"
#include "core/ops/layer_norm.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"
#include "core/ops/rms_norm.h"
#include "core/ops/squares.h"

namespace strata {
namespace {

using In = std::span<const Value>;
using Out = std::vector<Value>;
using Plain = Out (*)(GraphBuilder&, In, const FusedAttributes&);

struct Kind {
  const char* name;
  Plain plain;
  int min_inputs, max_inputs;
  int overwrites = -1;  // the input that output 0 may be written over
  int aliases = 0;      // so many outputs, from `first` on, have the storage of as many inputs, from `onto` on
  int first = 0, onto = 0;
};

class FusedOp final : public Op {
 public:
  FusedOp(const Kind& kind, const FusedAttributes& attributes) : kind_(kind), attributes_(attributes) {}
  std::string_view name() const override { return kind_.name; }
  std::string attributes() const override {
    std::string s;
    if (attributes_.always_add) s += "always_add ";
    if (attributes_.mask == AttentionMask::kFull) s += "full ";
    if (attributes_.head_dim > 0) s += absl::StrFormat("head_dim=%d ", attributes_.head_dim);
    if (attributes_.gelu == GeluKind::kErf) s += "erf ";
    if (attributes_.group > 1) s += absl::StrFormat("group=%d ", attributes_.group);
    if (!s.empty()) s.pop_back();
    return s;
  }
  // The plain ops know what fits and what comes out.
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    const int n = static_cast<int>(in.size());
    if (n < kind_.min_inputs || n > kind_.max_inputs) return ExpectArity(in, kind_.min_inputs);
    GraphBuilder g;
    std::vector<Value> values;
    for (int i = 0; i < n; ++i) values.push_back(g.Input(std::to_string(i), {in[i].dtype, in[i].shape, {}}));
    const Out out = kind_.plain(g, values, attributes_);
    RETURN_IF_ERROR(g.status());
    std::vector<TensorSpec> specs;
    for (Value v : out) specs.push_back({g.spec(v).dtype, g.spec(v).shape, {}});
    return specs;
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
  absl::StatusOr<std::vector<Value>> Decompose(GraphBuilder& g, In in) const override {
    Out out = kind_.plain(g, in, attributes_);
    RETURN_IF_ERROR(g.status());
    return out;
  }
  int Aliases(int output) const override {
    const int i = output - kind_.first;
    return i >= 0 && i < kind_.aliases ? kind_.onto + i : -1;
  }
  bool MayOverwrite(int input) const override { return input == kind_.overwrites; }
  double Flops(std::span<const TensorSpec> in) const override {
    GraphBuilder g;
    std::vector<Value> values;
    for (size_t i = 0; i < in.size(); ++i) values.push_back(g.Input(std::to_string(i), in[i]));
    kind_.plain(g, values, attributes_);
    double flops = 0;
    for (const Node& n : g.graph().nodes) {
      std::vector<TensorSpec> specs;
      for (Value v : n.inputs) specs.push_back(g.spec(v));
      flops += n.op->Flops(specs);
    }
    return flops;
  }
  const FusedAttributes& values() const { return attributes_; }

 private:
  const Kind kind_;
  const FusedAttributes attributes_;
};

// Indices [begin, begin + count) along `dim`, in equal pieces.
Value Range(GraphBuilder& g, Value x, int dim, int64_t begin, int64_t count) {
  const int64_t n = g.spec(x).shape[dim];
  if (count == n) return x;
  const int64_t piece = std::gcd(std::gcd(begin, count), n);
  if (piece == 0) return {};
  std::vector<Value> pieces;
  for (int64_t at = begin; at < begin + count; at += piece) {
    pieces.push_back(Slice(g, x, dim, static_cast<int>(at / piece), static_cast<int>(n / piece)));
  }
  return pieces.size() == 1 ? pieces[0] : Concat(g, std::move(pieces), dim);
}

// Side by side along `dim`, of any widths.
Value Pack(GraphBuilder& g, const std::vector<Value>& parts, int dim) {
  int64_t piece = 0;
  for (Value v : parts) piece = std::gcd(piece, g.spec(v).shape[dim]);
  if (piece == 0) return {};
  std::vector<Value> pieces;
  for (Value v : parts) {
    const int64_t n = g.spec(v).shape[dim] / piece;
    for (int64_t i = 0; i < n; ++i) {
      pieces.push_back(n == 1 ? v : Slice(g, v, dim, static_cast<int>(i), static_cast<int>(n)));
    }
  }
  return Concat(g, std::move(pieces), dim);
}

int Last(GraphBuilder& g, Value x) { return g.spec(x).shape.rank - 1; }

Value At(In in, size_t optional) { return in.size() > optional ? in[optional] : Value{}; }

Value AddIf(GraphBuilder& g, Value x, In in, size_t optional) {
  return in.size() > optional ? Add(g, x, in[optional]) : x;
}

Value AddInto(GraphBuilder& g, Value acc, Value x, const FusedAttributes& a) {
  return a.always_add ? Add(g, acc, x) : Accumulate(g, acc, x);
}

Out PlainLinearAdd(GraphBuilder& g, In in, const FusedAttributes&) { return {Add(g, Linear(g, in[0], in[1]), in[2])}; }

Out PlainLinearBias(GraphBuilder& g, In in, const FusedAttributes&) {
  return {BiasAdd(g, Linear(g, in[0], in[1]), in[2])};
}
Out PlainLinearBiasAdd(GraphBuilder& g, In in, const FusedAttributes&) {
  return {Add(g, BiasAdd(g, Linear(g, in[0], in[1]), in[2]), in[3])};
}

Out PlainLinearPackedBias(GraphBuilder& g, In in, const FusedAttributes&) {  // x, weights..., biases...
  const size_t n = in.size() / 2;
  Out y;
  for (size_t i = 1; i <= n; ++i) y.push_back(BiasAdd(g, Linear(g, in[0], in[i]), in[i + n]));
  return {Pack(g, y, Last(g, in[0]))};
}

Out PlainLinearPacked(GraphBuilder& g, In in, const FusedAttributes&) {
  Out y;
  for (Value w : in.subspan(1)) y.push_back(Linear(g, in[0], w));
  return {Pack(g, y, Last(g, in[0]))};
}

Out PlainLinearPackedDx(GraphBuilder& g, In in, const FusedAttributes&) {
  Value dx;
  int64_t at = 0;
  for (Value w : in.subspan(1)) {
    const int64_t n = g.spec(w).shape[0];
    const Value part = LinearDx(g, Range(g, in[0], Last(g, in[0]), at, n), w);
    dx = dx.valid() ? Add(g, dx, part) : part;
    at += n;
  }
  return {dx};
}

Out PlainLinearDxAdd(GraphBuilder& g, In in, const FusedAttributes& a) {  // dy, r, weights...
  Out product = {in[0]};
  product.insert(product.end(), in.begin() + 2, in.end());
  return {Add(g, in[1], PlainLinearPackedDx(g, product, a)[0])};
}

// accs..., dy, x
Out PlainLinearDwAcc(GraphBuilder& g, In in, const FusedAttributes& a) {
  const Value dy = in[in.size() - 2], x = in.back();
  Out sums;
  int64_t at = 0;
  for (Value acc : in.first(in.size() - 2)) {
    const int64_t n = g.spec(acc).shape[0];
    sums.push_back(AddInto(g, acc, LinearDw(g, Range(g, dy, Last(g, dy), at, n), x), a));
    at += n;
  }
  return sums;
}

Out PlainBiasGradAcc(GraphBuilder& g, In in, const FusedAttributes& a) {  // accs..., dy
  const Value dy = in.back();
  Out sums;
  int64_t at = 0;
  for (Value acc : in.first(in.size() - 1)) {
    const int64_t n = g.spec(acc).shape[0];
    sums.push_back(AddInto(g, acc, BiasGrad(g, Range(g, dy, Last(g, dy), at, n)), a));
    at += n;
  }
  return sums;
}

Out PlainEmbeddingDwAcc(GraphBuilder& g, In in, const FusedAttributes& a) {
  return {AddInto(g, in[0], EmbeddingDw(g, in[1], in[2], {.vocab = g.spec(in[0]).shape[0]}), a)};
}

// accs..., squares, two operands
template <Plain kGradient>
Out PlainWithSquares(GraphBuilder& g, In in, const FusedAttributes& a) {
  Out operands(in.begin(), in.end());
  operands.erase(operands.end() - 3);
  Out out = kGradient(g, operands, a);
  out.push_back(SquareParts(g, out));
  return out;
}

SplitHeads Unpack(GraphBuilder& g, Value qkv, int64_t group) {
  const int64_t kv = g.spec(qkv).shape[2] / (group + 2), q = group * kv;
  return {Range(g, qkv, 2, 0, q), Range(g, qkv, 2, q, kv), Range(g, qkv, 2, q + kv, kv)};
}

Out PlainHeadsPacked(GraphBuilder& g, In in, const FusedAttributes&) { return {Pack(g, {in[0], in[1], in[2]}, 2)}; }

Out PlainHeadsUnpacked(GraphBuilder& g, In in, const FusedAttributes& a) {
  const SplitHeads h = Unpack(g, in[0], a.group);
  return {h.q_BSHD, h.k_BSHD, h.v_BSHD};
}

Out PlainRopePacked(GraphBuilder& g, In in, const FusedAttributes& a) {
  const SplitHeads h = Unpack(g, in[0], a.group);
  const auto turn = [&](Value x) { return Rope(g, x, in[1], a.rope); };
  return {Pack(g, {turn(h.q_BSHD), turn(h.k_BSHD), h.v_BSHD}, 2)};
}

Out PlainLinearRope(GraphBuilder& g, In in, const FusedAttributes& a) {  // x, positions, q, k, v
  Out heads;
  for (Value w : in.subspan(2)) heads.push_back(SplitDim(g, Linear(g, in[0], w), Last(g, in[0]), a.head_dim));
  for (int i = 0; i < 2; ++i) heads[i] = Rope(g, heads[i], in[1], a.rope);
  return {Pack(g, heads, 2)};
}

Out PlainAttentionPacked(GraphBuilder& g, In in, const FusedAttributes& a) {
  const SplitHeads h = Unpack(g, in[0], a.group);
  const Value o = Attention(g, h.q_BSHD, h.k_BSHD, h.v_BSHD, in[1], in[1], a.mask, At(in, 2));
  return {o, {o.node, 1}};
}

Out PlainAttentionPackedBwd(GraphBuilder& g, In in, const FusedAttributes& a) {
  const SplitHeads h = Unpack(g, in[1], a.group);
  const AttentionGrads d =
      AttentionBwd(g, in[0], h.q_BSHD, h.k_BSHD, h.v_BSHD, in[2], in[3], in[4], in[4], a.mask, At(in, 5));
  return {Pack(g, {d.dq_BSHD, d.dk_BTHD, d.dv_BTHD}, 2)};
}

// do, qkv, o, lse, positions, positions of the rope(, starts)
Out PlainAttentionRopeBwd(GraphBuilder& g, In in, const FusedAttributes& a) {
  Out operands(in.begin(), in.end());
  operands.erase(operands.begin() + 5);
  return PlainRopePacked(g, Out{PlainAttentionPackedBwd(g, operands, a)[0], in[5]}, a);
}

Out PlainSwigluPacked(GraphBuilder& g, In in, const FusedAttributes&) {
  const int last = Last(g, in[0]);
  return {Swiglu(g, Slice(g, in[0], last, 0, 2), Slice(g, in[0], last, 1, 2))};
}

Out PlainSwigluPackedDx(GraphBuilder& g, In in, const FusedAttributes&) {
  const int last = Last(g, in[1]);
  const SwigluGrads d = SwigluDx(g, in[0], Slice(g, in[1], last, 0, 2), Slice(g, in[1], last, 1, 2));
  return {Concat(g, {d.gate, d.up}, last)};
}

Out PlainLinearSwiglu(GraphBuilder& g, In in, const FusedAttributes&) {
  const Value gate = Linear(g, in[0], in[1]), up = Linear(g, in[0], in[2]);
  return {Concat(g, {gate, up}, Last(g, gate)), Swiglu(g, gate, up)};
}

Out PlainLinearDxSwiglu(GraphBuilder& g, In in, const FusedAttributes& a) {
  return PlainSwigluPackedDx(g, Out{LinearDx(g, in[0], in[1]), in[2]}, a);
}

Out PlainLinearBiasGelu(GraphBuilder& g, In in, const FusedAttributes& a) {
  const Value pre = BiasAdd(g, Linear(g, in[0], in[1]), in[2]);
  return {pre, Gelu(g, pre, a.gelu)};
}

Out PlainLinearDxGelu(GraphBuilder& g, In in, const FusedAttributes& a) {
  return {GeluDx(g, LinearDx(g, in[0], in[1]), in[2], a.gelu)};
}

Out PlainLinearDxGeluAcc(GraphBuilder& g, In in, const FusedAttributes& a) {  // acc, dy, w, pre
  const Value dpre = PlainLinearDxGelu(g, in.subspan(1), a)[0];
  return {PlainBiasGradAcc(g, Out{in[0], dpre}, a)[0], dpre};
}

Out PlainRmsNormBwd(GraphBuilder& g, In in, const FusedAttributes&) {
  return {AddIf(g, RmsNormDx(g, in[0], in[1], in[2], in[3]), in, 4), RmsNormDw(g, in[0], in[1], in[3])};
}

Out PlainLayerNormBwd(GraphBuilder& g, In in, const FusedAttributes&) {
  const LayerNormGrads d = LayerNormDw(g, in[0], in[1], in[3], in[4]);
  return {AddIf(g, LayerNormDx(g, in[0], in[1], in[2], in[3], in[4]), in, 5), d.weight_E, d.bias_E};
}

Out PlainLayerNormBwdSum(GraphBuilder& g, In in, const FusedAttributes& a) {
  Out out = PlainLayerNormBwd(g, in, a);
  out.push_back(BiasGrad(g, out[0]));
  return out;
}

// dy, x, w, (mean,) rstd, accs..., r or none
template <Plain kGradient, size_t kAccs>
Out PlainNormBwdAcc(GraphBuilder& g, In in, const FusedAttributes& a) {
  const In accs = in.subspan(kAccs == 1 ? 4 : 5, kAccs);
  Out operands(in.begin(), accs.begin());
  operands.insert(operands.end(), accs.end(), in.end());
  Out out = kGradient(g, operands, a);
  for (size_t i = 0; i < kAccs; ++i) out[1 + i] = AddInto(g, accs[i], out[1 + i], a);
  return out;
}

Out PlainSoftmaxNll(GraphBuilder& g, In in, const FusedAttributes&) {
  const Value m = VocabMax(g, in[0]);
  return {Nll(g, m, VocabSumExp(g, in[0], m), VocabPick(g, in[0], in[1]), in[2])};
}

Out PlainSoftmaxNllGrad(GraphBuilder& g, In in, const FusedAttributes&) {
  const Value m = VocabMax(g, in[0]), s = VocabSumExp(g, in[0], m);
  const Value loss = Nll(g, m, s, VocabPick(g, in[0], in[1]), in[2]);
  return {SoftmaxGrad(g, in[0], m, s, in[1], in[2], in[3]), loss};
}

constexpr int kMany = 8;  // packed weights at most
constexpr Kind kLinearAdd = {"linear_add", PlainLinearAdd, 3, 3, 2};
constexpr Kind kLinearBias = {"linear_bias", PlainLinearBias, 3, 3};
constexpr Kind kLinearBiasAdd = {"linear_bias_add", PlainLinearBiasAdd, 4, 4, 3};
constexpr Kind kLinearPackedBias = {"linear_packed_bias", PlainLinearPackedBias, 3, 1 + 2 * kMany};
constexpr Kind kLinearPacked = {"linear_packed", PlainLinearPacked, 2, 1 + kMany};
constexpr Kind kLinearPackedDx = {"linear_packed_dx", PlainLinearPackedDx, 2, 1 + kMany};
constexpr Kind kLinearDxAdd = {"linear_dx_add", PlainLinearDxAdd, 3, 2 + kMany, 1};
constexpr Kind kLinearDwAcc = {"linear_dw_acc", PlainLinearDwAcc, 3, 2 + kMany, -1, kMany};
constexpr Kind kLinearDwAccSquares = {
    "linear_dw_acc_squares", PlainWithSquares<PlainLinearDwAcc>, 4, 3 + kMany, -1, kMany + 1};
constexpr Kind kBiasGradAcc = {"bias_grad_acc", PlainBiasGradAcc, 2, 1 + kMany, -1, kMany};
constexpr Kind kEmbeddingDwAcc = {"embedding_dw_acc", PlainEmbeddingDwAcc, 3, 3, -1, 1};
constexpr Kind kEmbeddingDwAccSquares = {
    "embedding_dw_acc_squares", PlainWithSquares<PlainEmbeddingDwAcc>, 4, 4, -1, 2};
constexpr Kind kRopePacked = {"rope_packed", PlainRopePacked, 2, 2, 0};
constexpr Kind kLinearRope = {"linear_rope", PlainLinearRope, 5, 5};
constexpr Kind kAttentionPacked = {"attention_packed", PlainAttentionPacked, 2, 3};
constexpr Kind kAttentionPackedBwd = {"attention_packed_bwd", PlainAttentionPackedBwd, 5, 6};
constexpr Kind kAttentionRopeBwd = {"attention_rope_bwd", PlainAttentionRopeBwd, 6, 7};
constexpr Kind kHeadsPacked = {"heads_packed", PlainHeadsPacked, 3, 3};
constexpr Kind kHeadsUnpacked = {"heads_unpacked", PlainHeadsUnpacked, 1, 1};
constexpr Kind kSwigluPacked = {"swiglu_packed", PlainSwigluPacked, 1, 1};
constexpr Kind kSwigluPackedDx = {"swiglu_packed_dx", PlainSwigluPackedDx, 2, 2, 1};
constexpr Kind kLinearSwiglu = {"linear_swiglu", PlainLinearSwiglu, 3, 3};
constexpr Kind kLinearDxSwiglu = {"linear_dx_swiglu", PlainLinearDxSwiglu, 3, 3};
constexpr Kind kLinearBiasGelu = {"linear_bias_gelu", PlainLinearBiasGelu, 3, 3};
constexpr Kind kLinearDxGelu = {"linear_dx_gelu", PlainLinearDxGelu, 3, 3};
constexpr Kind kLinearDxGeluAcc = {"linear_dx_gelu_acc", PlainLinearDxGeluAcc, 4, 4, -1, 1};
constexpr Kind kRmsNormBwd = {"rms_norm_bwd", PlainRmsNormBwd, 4, 5, 4};
constexpr Kind kLayerNormBwd = {"layer_norm_bwd", PlainLayerNormBwd, 5, 6, 5};
constexpr Kind kLayerNormBwdSum = {"layer_norm_bwd_sum", PlainLayerNormBwdSum, 5, 6, 5};
constexpr Kind kRmsNormBwdAcc = {"rms_norm_bwd_acc", PlainNormBwdAcc<PlainRmsNormBwd, 1>, 5, 6, 5, 1, 1, 4};
constexpr Kind kLayerNormBwdAcc = {"layer_norm_bwd_acc", PlainNormBwdAcc<PlainLayerNormBwd, 2>, 7, 8, 7, 2, 1, 5};
constexpr Kind kLayerNormBwdSumAcc = {
    "layer_norm_bwd_sum_acc", PlainNormBwdAcc<PlainLayerNormBwdSum, 3>, 8, 9, 8, 3, 1, 5};
constexpr Kind kSoftmaxNll = {"softmax_nll", PlainSoftmaxNll, 3, 3};
constexpr Kind kSoftmaxNllGrad = {"softmax_nll_grad", PlainSoftmaxNllGrad, 4, 4, 0};

Out Emit(GraphBuilder& g, const Kind& kind, Out in, SourceLoc loc, const FusedAttributes& a = {}) {
  return g.Add(std::make_shared<FusedOp>(kind, a), std::move(in), loc);
}

FusedAttributes Adding(bool always_add) {
  FusedAttributes a;
  a.always_add = always_add;
  return a;
}
FusedAttributes Grouped(int64_t group, AttentionMask mask) {
  FusedAttributes a;
  a.group = group;
  a.mask = mask;
  return a;
}
FusedAttributes Turned(int64_t group, const RopeAttributes& rope) {
  FusedAttributes a;
  a.group = group;
  a.rope = rope;
  return a;
}
FusedAttributes Curved(GeluKind gelu) {
  FusedAttributes a;
  a.gelu = gelu;
  return a;
}

Out Join(Out head, In tail) {
  head.insert(head.end(), tail.begin(), tail.end());
  return head;
}

SquaredSums Squared(Out out) {  // the last one is the parts
  const Value parts = out.back();
  out.pop_back();
  return {std::move(out), parts};
}

Out WithValid(Out in, Value optional) {
  if (optional.valid()) in.push_back(optional);
  return in;
}

}  // namespace

const FusedAttributes& FusedAttributesOf(const Op& op) { return static_cast<const FusedOp&>(op).values(); }

Value LinearAdd(GraphBuilder& g, Value x, Value w, Value r, SourceLoc loc) {
  return Emit(g, kLinearAdd, {x, w, r}, loc)[0];
}
Value LinearPacked(GraphBuilder& g, Value x, In w, SourceLoc loc) {
  return Emit(g, kLinearPacked, Join({x}, w), loc)[0];
}
Value LinearBias(GraphBuilder& g, Value x, Value w, Value bias, SourceLoc loc) {
  return Emit(g, kLinearBias, {x, w, bias}, loc)[0];
}
Value LinearBiasAdd(GraphBuilder& g, Value x, Value w, Value bias, Value r, SourceLoc loc) {
  return Emit(g, kLinearBiasAdd, {x, w, bias, r}, loc)[0];
}
Value LinearPackedBias(GraphBuilder& g, Value x, In w, In bias, SourceLoc loc) {
  return Emit(g, kLinearPackedBias, Join(Join({x}, w), bias), loc)[0];
}
Value LinearPackedDx(GraphBuilder& g, Value dy, In w, SourceLoc loc) {
  return Emit(g, kLinearPackedDx, Join({dy}, w), loc)[0];
}
Value LinearDxAdd(GraphBuilder& g, Value dy, In w, Value r, SourceLoc loc) {
  return Emit(g, kLinearDxAdd, Join({dy, r}, w), loc)[0];
}
Out LinearDwAcc(GraphBuilder& g, In accs, Value dy, Value x, bool always_add, SourceLoc loc) {
  return Emit(g, kLinearDwAcc, Join(Out(accs.begin(), accs.end()), Out{dy, x}), loc, Adding(always_add));
}
SquaredSums LinearDwAccSquares(GraphBuilder& g, In accs, Value squares, Value dy, Value x, SourceLoc loc) {
  return Squared(Emit(g, kLinearDwAccSquares, Join(Out(accs.begin(), accs.end()), Out{squares, dy, x}), loc));
}
Out BiasGradAcc(GraphBuilder& g, In accs, Value dy, bool always_add, SourceLoc loc) {
  return Emit(g, kBiasGradAcc, Join(Out(accs.begin(), accs.end()), Out{dy}), loc, Adding(always_add));
}
Value EmbeddingDwAcc(GraphBuilder& g, Value acc, Value tokens, Value dy, bool always_add, SourceLoc loc) {
  return Emit(g, kEmbeddingDwAcc, {acc, tokens, dy}, loc, Adding(always_add))[0];
}
SquaredSums EmbeddingDwAccSquares(GraphBuilder& g, Value acc, Value squares, Value tokens, Value dy, SourceLoc loc) {
  return Squared(Emit(g, kEmbeddingDwAccSquares, {acc, squares, tokens, dy}, loc));
}
Value RopePacked(GraphBuilder& g, Value qkv, Value positions, const RopeAttributes& rope, int64_t group,
                 SourceLoc loc) {
  return Emit(g, kRopePacked, {qkv, positions}, loc, Turned(group, rope))[0];
}
Value LinearRope(GraphBuilder& g, Value x, Value positions, In w, const RopeAttributes& rope, int64_t group,
                 int64_t head_dim, SourceLoc loc) {
  FusedAttributes a = Turned(group, rope);
  a.head_dim = head_dim;
  return Emit(g, kLinearRope, Join({x, positions}, w), loc, a)[0];
}
PackedAttention AttentionPacked(GraphBuilder& g, Value qkv, Value positions, AttentionMask mask, int64_t group,
                                Value starts, SourceLoc loc) {
  const Out out = Emit(g, kAttentionPacked, WithValid({qkv, positions}, starts), loc, Grouped(group, mask));
  return {out[0], out[1]};
}
Value AttentionPackedBwd(GraphBuilder& g, Value d_o, Value qkv, Value o, Value lse, Value positions, AttentionMask mask,
                         int64_t group, Value starts, SourceLoc loc) {
  return Emit(g, kAttentionPackedBwd, WithValid({d_o, qkv, o, lse, positions}, starts), loc, Grouped(group, mask))[0];
}
Value AttentionRopeBwd(GraphBuilder& g, Value d_o, Value qkv, Value o, Value lse, Value positions, Value rope_positions,
                       AttentionMask mask, const RopeAttributes& rope, int64_t group, Value starts, SourceLoc loc) {
  FusedAttributes a = Turned(group, rope);
  a.mask = mask;
  return Emit(g, kAttentionRopeBwd, WithValid({d_o, qkv, o, lse, positions, rope_positions}, starts), loc, a)[0];
}
Value HeadsPacked(GraphBuilder& g, Value q, Value k, Value v, SourceLoc loc) {
  return Emit(g, kHeadsPacked, {q, k, v}, loc)[0];
}
SplitHeads HeadsUnpacked(GraphBuilder& g, Value qkv, int64_t group, SourceLoc loc) {
  const Out out = Emit(g, kHeadsUnpacked, {qkv}, loc, Grouped(group, AttentionMask::kCausal));
  return {out[0], out[1], out[2]};
}
Value SwigluPacked(GraphBuilder& g, Value y, SourceLoc loc) { return Emit(g, kSwigluPacked, {y}, loc)[0]; }
Value SwigluPackedDx(GraphBuilder& g, Value dh, Value y, SourceLoc loc) {
  return Emit(g, kSwigluPackedDx, {dh, y}, loc)[0];
}
GatedProduct LinearSwiglu(GraphBuilder& g, Value x, Value gate, Value up, SourceLoc loc) {
  const Out out = Emit(g, kLinearSwiglu, {x, gate, up}, loc);
  return {out[0], out[1]};
}
Value LinearDxSwiglu(GraphBuilder& g, Value dy, Value down, Value gu, SourceLoc loc) {
  return Emit(g, kLinearDxSwiglu, {dy, down, gu}, loc)[0];
}
GeluProduct LinearBiasGelu(GraphBuilder& g, Value x, Value w, Value bias, GeluKind kind, SourceLoc loc) {
  const Out out = Emit(g, kLinearBiasGelu, {x, w, bias}, loc, Curved(kind));
  return {out[0], out[1]};
}
Value LinearDxGelu(GraphBuilder& g, Value dy, Value w, Value pre, GeluKind kind, SourceLoc loc) {
  return Emit(g, kLinearDxGelu, {dy, w, pre}, loc, Curved(kind))[0];
}
GeluGradient LinearDxGeluAcc(GraphBuilder& g, Value acc, Value dy, Value w, Value pre, GeluKind kind, bool always_add,
                             SourceLoc loc) {
  FusedAttributes a = Curved(kind);
  a.always_add = always_add;
  const Out out = Emit(g, kLinearDxGeluAcc, {acc, dy, w, pre}, loc, a);
  return {out[0], out[1]};
}
NormGrads RmsNormBwd(GraphBuilder& g, Value dy, Value x, Value w, Value rstd, Value r, SourceLoc loc) {
  const Out out = Emit(g, kRmsNormBwd, r.valid() ? Out{dy, x, w, rstd, r} : Out{dy, x, w, rstd}, loc);
  return {out[0], out[1]};
}
NormGrads LayerNormBwd(GraphBuilder& g, Value dy, Value x, Value w, Value mean, Value rstd, Value r, SourceLoc loc) {
  const Out out = Emit(g, kLayerNormBwd, r.valid() ? Out{dy, x, w, mean, rstd, r} : Out{dy, x, w, mean, rstd}, loc);
  return {out[0], out[1], out[2]};
}
NormGradsAndSum LayerNormBwdSum(GraphBuilder& g, Value dy, Value x, Value w, Value mean, Value rstd, Value r,
                                SourceLoc loc) {
  const Out out = Emit(g, kLayerNormBwdSum, WithValid({dy, x, w, mean, rstd}, r), loc);
  return {{out[0], out[1], out[2]}, out[3]};
}
NormGradsAdded NormBwdAcc(GraphBuilder& g, Value dy, Value x, Value w, Value mean, Value rstd, In accs, Value r,
                          SourceLoc loc) {
  const Kind& kind = accs.size() == 1 ? kRmsNormBwdAcc : accs.size() == 2 ? kLayerNormBwdAcc : kLayerNormBwdSumAcc;
  Out in = WithValid({dy, x, w}, mean);
  in.push_back(rstd);
  Out out = Emit(g, kind, WithValid(Join(std::move(in), accs), r), loc);
  return {out[0], Out(out.begin() + 1, out.end())};
}
Value SoftmaxNll(GraphBuilder& g, Value z, Value targets, Value weights, SourceLoc loc) {
  return Emit(g, kSoftmaxNll, {z, targets, weights}, loc)[0];
}
NllAndGrad SoftmaxNllGrad(GraphBuilder& g, Value z, Value targets, Value weights, Value seed, SourceLoc loc) {
  const Out out = Emit(g, kSoftmaxNllGrad, {z, targets, weights, seed}, loc);
  return {out[0], out[1]};
}

}  // namespace strata
