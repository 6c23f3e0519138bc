#include "core/ops/head_loss.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/bias.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "core/ops/infer.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"
#include "core/ops/vocab_mask.h"

namespace strata {
namespace {

enum Operand : uint8_t { kX, kWeight, kTargets, kWeights, kSeed, kBias };  // the bias may be absent

struct Chunk {
  Value loss, dx_BSE;
  std::vector<Value> sums;  // over chunks: dw [V, E], and dbias [V] where there is a bias
};

Chunk EmitChunk(GraphBuilder& g, std::span<const Value> in, int64_t classes) {
  const Value x = in[kX], w = in[kWeight], targets = in[kTargets], weights = in[kWeights], seed = in[kSeed];
  Value z = Linear(g, x, w);
  if (in.size() > kBias) z = BiasAdd(g, z, in[kBias]);
  if (classes > 0) z = VocabMask(g, z, classes);
  const Value m = VocabMax(g, z), s = VocabSumExp(g, z, m), p = VocabPick(g, z, targets);
  const Value loss = Nll(g, m, s, p, weights);
  const Value dz = SoftmaxGrad(g, z, m, s, targets, weights, seed);
  Chunk chunk{loss, LinearDx(g, dz, w), {LinearDw(g, dz, x)}};
  if (in.size() > kBias) chunk.sums.push_back(BiasGrad(g, dz));
  return chunk;
}

class HeadLossOp final : public Op {
 public:
  HeadLossOp(int chunks, int64_t classes) : chunks_(chunks), classes_(classes) {}
  std::string_view name() const override { return "head_loss"; }
  std::string attributes() const override {
    return absl::StrFormat("chunks=%d", chunks_) + (classes_ > 0 ? absl::StrFormat(" classes=%d", classes_) : "");
  }

  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    const bool bias = in.size() > kBias;
    RETURN_IF_ERROR(ExpectArity(in, bias ? 6 : 5));
    const TensorSpec &x = in[kX], &w = in[kWeight];
    if (!IsFloating(x.dtype) || x.shape.rank != 3) return absl::InvalidArgumentError("x must be a floating [B, S, E]");
    if (w.dtype != x.dtype || w.shape.rank != 2 || w.shape[1] != x.shape[2]) {
      return absl::InvalidArgumentError("w must be [V, E] of the dtype of x");
    }
    const DType accumulator = AccumulatorOf(x.dtype);
    const Shape bs = {x.shape[0], x.shape[1]};
    const auto is = [&](size_t i, DType dtype, const Shape& shape) {
      return in[i].dtype == dtype && in[i].shape == shape;
    };
    if (!is(kTargets, DType::kI32, bs) || !is(kWeights, accumulator, bs) || !is(kSeed, accumulator, {})) {
      return absl::InvalidArgumentError(
          "targets must be i32 [B, S], weights [B, S] and seed [] of the accumulator dtype");
    }
    if (bias && !is(kBias, x.dtype, {w.shape[0]})) {
      return absl::InvalidArgumentError("the bias must be [V] of the dtype of x");
    }
    if (chunks_ < 1 || x.shape[1] % chunks_ != 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("a sequence of %d has no %d equal chunks", x.shape[1], chunks_));
    }
    std::vector<TensorSpec> out = {{accumulator, {}, {}}, {x.dtype, x.shape, {}}, {accumulator, w.shape, {}}};
    if (bias) out.push_back({accumulator, in[kBias].shape, {}});
    return out;
  }

  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    bool others = false;
    for (Value grad : a.grads.subspan(1)) others |= grad.valid();
    if (a.grads[0] != a.inputs[kSeed] || others) {
      return absl::InvalidArgumentError("head_loss: the cotangent of the loss must be its own seed");
    }
    std::vector<Value> grads = {a.outputs[1], a.outputs[2], {}, {}, {}};
    if (a.inputs.size() > kBias) grads.push_back(a.outputs[3]);
    return grads;
  }

  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    return {{std::vector(in.size(), Replicate()), std::vector(in.size() - 2, Replicate())}};
  }

  absl::StatusOr<std::vector<Value>> Decompose(GraphBuilder& g, std::span<const Value> in) const override {
    if (chunks_ == 1) return Outputs(EmitChunk(g, in, classes_));
    // Chunk i is every chunks-th position from i on: as [B, S / chunks, chunks, ...] a sharded sequence stays sharded.
    std::vector<Value> split(in.begin(), in.end());
    for (Operand k : {kX, kTargets, kWeights}) split[k] = SplitDim(g, in[k], 1, chunks_);
    Chunk total;
    std::vector<Value> dx;
    for (int i = 0; i < chunks_; ++i) {
      std::vector<Value> part = split;
      for (Operand k : {kX, kTargets, kWeights}) part[k] = MergeDims(g, Slice(g, split[k], 2, i, chunks_), 1);
      Chunk c = EmitChunk(g, part, classes_);
      dx.push_back(SplitDim(g, c.dx_BSE, 1, 1));
      if (i > 0) {
        c.loss = Add(g, total.loss, c.loss);
        for (size_t k = 0; k < c.sums.size(); ++k) c.sums[k] = Add(g, total.sums[k], c.sums[k]);
      }
      total = std::move(c);
    }
    total.dx_BSE = MergeDims(g, Concat(g, dx, 2), 1);
    return Outputs(total);
  }

 private:
  static std::vector<Value> Outputs(const Chunk& c) {
    std::vector<Value> out = {c.loss, c.dx_BSE};
    out.insert(out.end(), c.sums.begin(), c.sums.end());
    return out;
  }

  int chunks_;
  int64_t classes_;
};

}  // namespace

Value HeadLoss(GraphBuilder& g, Value x, Value w, Value bias, Value targets, Value weights, Value seed, int chunks,
               int64_t classes, SourceLoc loc) {
  std::vector<Value> in = {x, w, targets, weights, seed};
  if (bias.valid()) in.push_back(bias);
  return g.Add(std::make_shared<HeadLossOp>(chunks, classes), std::move(in), loc)[0];
}

}  // namespace strata
