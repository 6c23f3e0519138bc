#include "core/ops/head_loss.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "core/ops/infer.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"

namespace strata {
namespace {

struct Chunk {
  Value loss, dx_BSE, dw_VE;
};

Chunk EmitChunk(GraphBuilder& g, Value x, Value w, Value targets, Value weights, Value seed) {
  const Value z = Linear(g, x, w);
  const Value m = VocabMax(g, z), s = VocabSumExp(g, z, m), p = VocabPick(g, z, targets);
  const Value loss = Nll(g, m, s, p, weights);
  const Value dz = SoftmaxGrad(g, z, m, s, targets, weights, seed);
  return {loss, LinearDx(g, dz, w), LinearDw(g, dz, x)};
}

class HeadLossOp final : public Op {
 public:
  explicit HeadLossOp(int chunks) : chunks_(chunks) {}
  std::string_view name() const override { return "head_loss"; }
  std::string attributes() const override { return absl::StrFormat("chunks=%d", chunks_); }

  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 5));
    const TensorSpec &x = in[0], &w = in[1];
    if (!IsFloating(x.dtype) || x.shape.rank != 3) return absl::InvalidArgumentError("x must be a floating [B, S, E]");
    if (w.dtype != x.dtype || w.shape.rank != 2 || w.shape[1] != x.shape[2]) {
      return absl::InvalidArgumentError("w must be [V, E] of the dtype of x");
    }
    const DType accumulator = AccumulatorOf(x.dtype);
    const Shape bs = {x.shape[0], x.shape[1]};
    const auto is = [&](size_t i, DType dtype, const Shape& shape) {
      return in[i].dtype == dtype && in[i].shape == shape;
    };
    if (!is(2, DType::kI32, bs) || !is(3, accumulator, bs) || !is(4, accumulator, {})) {
      return absl::InvalidArgumentError(
          "targets must be i32 [B, S], weights [B, S] and seed [] of the accumulator dtype");
    }
    if (chunks_ < 1 || x.shape[1] % chunks_ != 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("a sequence of %d has no %d equal chunks", x.shape[1], chunks_));
    }
    return std::vector<TensorSpec>{{accumulator, {}, {}}, {x.dtype, x.shape, {}}, {accumulator, w.shape, {}}};
  }

  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    if (a.grads[0] != a.inputs[4] || a.grads[1].valid() || a.grads[2].valid()) {
      return absl::InvalidArgumentError("head_loss: the cotangent of the loss must be its own seed");
    }
    return std::vector<Value>{a.outputs[1], a.outputs[2], {}, {}, {}};
  }

  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override {
    return {{std::vector(5, Replicate()), std::vector(3, Replicate())}};
  }

  absl::StatusOr<std::vector<Value>> Decompose(GraphBuilder& g, std::span<const Value> in) const override {
    const Value x = in[0], w = in[1], targets = in[2], weights = in[3], seed = in[4];
    if (chunks_ == 1) {
      const Chunk c = EmitChunk(g, x, w, targets, weights, seed);
      return std::vector<Value>{c.loss, c.dx_BSE, c.dw_VE};
    }
    // Chunk i is every chunks-th position from i on: as [B, S / chunks, chunks, ...] a sharded sequence stays sharded.
    const auto split = [&](Value v) { return SplitDim(g, v, 1, chunks_); };
    const Value split_x = split(x), split_targets = split(targets), split_weights = split(weights);
    Value loss, dw;
    std::vector<Value> dx;
    for (int i = 0; i < chunks_; ++i) {
      const auto part = [&](Value v) { return MergeDims(g, Slice(g, v, 2, i, chunks_), 1); };
      const Chunk c = EmitChunk(g, part(split_x), w, part(split_targets), part(split_weights), seed);
      loss = i == 0 ? c.loss : Add(g, loss, c.loss);
      dw = i == 0 ? c.dw_VE : Add(g, dw, c.dw_VE);
      dx.push_back(SplitDim(g, c.dx_BSE, 1, 1));
    }
    return std::vector<Value>{loss, MergeDims(g, Concat(g, dx, 2), 1), dw};
  }

 private:
  int chunks_;
};

}  // namespace

Value HeadLoss(GraphBuilder& g, Value x, Value w, Value targets, Value weights, Value seed, int chunks, SourceLoc loc) {
  return g.Add(std::make_shared<HeadLossOp>(chunks), {x, w, targets, weights, seed}, loc)[0];
}

}  // namespace strata
