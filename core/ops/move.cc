#include "core/ops/move.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

using Specs = absl::StatusOr<std::vector<TensorSpec>>;
using Values = absl::StatusOr<std::vector<Value>>;

Specs One(DType dtype, const Shape& shape) { return std::vector<TensorSpec>{{dtype, shape, {}}}; }

// num_in operands with one placement -> one result with the same: each dim but `except`, Partial, Replicate.
std::vector<ShardRule> UniformRules(int rank, int num_in, int except) {
  std::vector<ShardRule> rules;
  const auto add = [&](Placement p) { rules.push_back({std::vector<Placement>(num_in, p), {p}}); };
  for (int d = 0; d < rank; ++d) {
    if (d != except) add(Shard(d));
  }
  add(Partial());
  add(Replicate());
  return rules;
}

class SplitDimOp final : public Op {
 public:
  SplitDimOp(int dim, int64_t inner) : dim_(dim), inner_(inner) {}
  std::string_view name() const override { return "split_dim"; }
  std::string attributes() const override { return absl::StrFormat("dim=%d inner=%d", dim_, inner_); }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 1));
    RETURN_IF_ERROR(ExpectDim(in[0], dim_));
    const Shape& x = in[0].shape;
    if (x.rank == kMaxRank) return absl::InvalidArgumentError("has no room for another dim");
    if (inner_ < 1 || x[dim_] % inner_ != 0) {
      return absl::InvalidArgumentError(absl::StrFormat("dim %d does not divide by %d", dim_, inner_));
    }
    return One(in[0].dtype, InsertDim(WithDim(x, dim_, x[dim_] / inner_), dim_ + 1, inner_));
  }
  Values Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{MergeDims(a.g, a.grads[0], dim_, a.node.loc)};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    std::vector<ShardRule> rules;
    for (int d = 0; d < in[0].shape.rank; ++d) rules.push_back({{Shard(d)}, {Shard(d <= dim_ ? d : d + 1)}});
    rules.push_back({{Partial()}, {Partial()}});
    rules.push_back({{Replicate()}, {Replicate()}});
    return rules;
  }
  int Aliases(int) const override { return 0; }
  bool IsView() const override { return true; }

 private:
  int dim_;
  int64_t inner_;
};

class MergeDimsOp final : public Op {
 public:
  explicit MergeDimsOp(int dim) : dim_(dim) {}
  std::string_view name() const override { return "merge_dims"; }
  std::string attributes() const override { return absl::StrFormat("dim=%d", dim_); }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 1));
    RETURN_IF_ERROR(ExpectDim(in[0], dim_));
    RETURN_IF_ERROR(ExpectDim(in[0], dim_ + 1));
    const Shape& x = in[0].shape;
    return One(in[0].dtype, WithDim(EraseDim(x, dim_), dim_, x[dim_] * x[dim_ + 1]));
  }
  // The inner dim is never sharded, so its extent is no secret of the global tensor.
  Values Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{SplitDim(a.g, a.grads[0], dim_, a.g.spec(a.inputs[0]).shape[dim_ + 1], a.node.loc)};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    std::vector<ShardRule> rules;
    for (int d = 0; d < in[0].shape.rank; ++d) {
      if (d != dim_ + 1) rules.push_back({{Shard(d)}, {Shard(d <= dim_ ? d : d - 1)}});
    }
    rules.push_back({{Partial()}, {Partial()}});
    rules.push_back({{Replicate()}, {Replicate()}});
    return rules;
  }
  int Aliases(int) const override { return 0; }
  bool IsView() const override { return true; }

 private:
  int dim_;
};

// slice and pad_slice: each is the other's gradient.
class PieceOp : public Op {
 public:
  explicit PieceOp(Piece piece) : piece_(piece) {}
  std::string attributes() const override {
    return absl::StrFormat("dim=%d part=%d/%d", piece_.dim, piece_.part, piece_.parts);
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    return UniformRules(in[0].shape.rank, 1, piece_.dim);
  }
  const Piece& piece() const { return piece_; }

 protected:
  absl::Status Check(std::span<const TensorSpec> in) const {
    RETURN_IF_ERROR(ExpectArity(in, 1));
    RETURN_IF_ERROR(ExpectDim(in[0], piece_.dim));
    if (piece_.part >= 0 && piece_.part < piece_.parts) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrFormat("no part %d of %d", piece_.part, piece_.parts));
  }

 private:
  Piece piece_;
};

class SliceOp final : public PieceOp {
 public:
  using PieceOp::PieceOp;
  std::string_view name() const override { return "slice"; }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(Check(in));
    const int64_t n = in[0].shape[piece().dim];
    if (n % piece().parts != 0) {
      return absl::InvalidArgumentError(absl::StrFormat("dim %d does not divide by %d", piece().dim, piece().parts));
    }
    return One(in[0].dtype, WithDim(in[0].shape, piece().dim, n / piece().parts));
  }
  Values Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{PadSlice(a.g, a.grads[0], piece().dim, piece().part, piece().parts, a.node.loc)};
  }
};

class PadSliceOp final : public PieceOp {
 public:
  using PieceOp::PieceOp;
  std::string_view name() const override { return "pad_slice"; }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(Check(in));
    return One(in[0].dtype, WithDim(in[0].shape, piece().dim, in[0].shape[piece().dim] * piece().parts));
  }
  Values Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{Slice(a.g, a.grads[0], piece().dim, piece().part, piece().parts, a.node.loc)};
  }
};

// concat, reduce_sum, broadcast: an op along one dim, or all (-1).
class DimOp : public Op {
 public:
  explicit DimOp(int dim) : dim_(dim) {}
  std::string attributes() const override { return dim_ < 0 ? "all" : absl::StrFormat("dim=%d", dim_); }
  int dim() const { return dim_; }

 protected:
  Shape Reduced(const Shape& x) const { return dim_ < 0 ? Shape{} : EraseDim(x, dim_); }
  // What Shard(d) of x is in the sum of x over the dim.
  Placement ReducedShard(int d) const {
    if (dim_ < 0 || d == dim_) return Partial();
    return Shard(d < dim_ ? d : d - 1);
  }

 private:
  int dim_;
};

class ConcatOp final : public DimOp {
 public:
  using DimOp::DimOp;
  std::string_view name() const override { return "concat"; }
  Specs Infer(std::span<const TensorSpec> in) const override {
    if (in.empty()) return absl::InvalidArgumentError("takes at least one operand");
    RETURN_IF_ERROR(ExpectDim(in[0], dim()));
    for (const TensorSpec& s : in) {
      if (s.shape != in[0].shape || s.dtype != in[0].dtype) return absl::InvalidArgumentError("operands differ");
    }
    return One(in[0].dtype, WithDim(in[0].shape, dim(), in[0].shape[dim()] * static_cast<int64_t>(in.size())));
  }
  Values Vjp(const VjpArgs& a) const override {
    std::vector<Value> grads;
    const int parts = static_cast<int>(a.inputs.size());
    for (int i = 0; i < parts; ++i) grads.push_back(Slice(a.g, a.grads[0], dim(), i, parts, a.node.loc));
    return grads;
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    return UniformRules(in[0].shape.rank, static_cast<int>(in.size()), dim());
  }
};

class ReduceSumOp final : public DimOp {
 public:
  using DimOp::DimOp;
  std::string_view name() const override { return "reduce_sum"; }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectAlike(in, 1));
    if (dim() >= 0) RETURN_IF_ERROR(ExpectDim(in[0], dim()));
    return One(in[0].dtype, Reduced(in[0].shape));
  }
  Values Vjp(const VjpArgs& a) const override {
    const Value dy = a.grads[0], x = a.inputs[0];
    return std::vector<Value>{dim() < 0 ? BroadcastAll(a.g, dy, x, a.node.loc)
                                        : Broadcast(a.g, dy, x, dim(), a.node.loc)};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    std::vector<ShardRule> rules;
    for (int d = 0; d < in[0].shape.rank; ++d) rules.push_back({{Shard(d)}, {ReducedShard(d)}});
    rules.push_back({{Partial()}, {Partial()}});
    rules.push_back({{Replicate()}, {Replicate()}});
    return rules;
  }
};

class BroadcastOp final : public DimOp {
 public:
  using DimOp::DimOp;
  std::string_view name() const override { return "broadcast"; }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 2));
    if (dim() >= 0) RETURN_IF_ERROR(ExpectDim(in[1], dim()));
    if (!IsFloating(in[0].dtype)) return absl::InvalidArgumentError("takes a floating operand");
    if (in[0].shape != Reduced(in[1].shape)) return absl::InvalidArgumentError("operands do not fit");
    return One(in[0].dtype, in[1].shape);
  }
  Values Vjp(const VjpArgs& a) const override {
    const Value dy = a.grads[0];
    return std::vector<Value>{dim() < 0 ? ReduceSumAll(a.g, dy, a.node.loc) : ReduceSum(a.g, dy, dim(), a.node.loc),
                              {}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    std::vector<ShardRule> rules;
    for (int d = 0; d < in[1].shape.rank; ++d) {
      const Placement x = ReducedShard(d).is_partial() ? Replicate() : ReducedShard(d);
      rules.push_back({{x, Shard(d)}, {Shard(d)}});
    }
    rules.push_back({{Partial(), Replicate()}, {Partial()}});
    rules.push_back({{Replicate(), Replicate()}, {Replicate()}});
    return rules;
  }
};

class CastOp final : public Op {
 public:
  explicit CastOp(DType dtype) : dtype_(dtype) {}
  std::string_view name() const override { return "cast"; }
  std::string attributes() const override { return Name(dtype_); }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectAlike(in, 1));
    if (!IsFloating(dtype_)) return absl::InvalidArgumentError("casts to floating dtypes only");
    return One(dtype_, in[0].shape);
  }
  Values Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{Cast(a.g, a.grads[0], a.g.spec(a.inputs[0]).dtype, a.node.loc)};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    return ElementwiseRules(in[0].shape.rank, 1, 1);
  }

 private:
  DType dtype_;
};

}  // namespace

Value SplitDim(GraphBuilder& g, Value x, int dim, int64_t inner, SourceLoc loc) {
  return g.Add(std::make_shared<SplitDimOp>(dim, inner), {x}, loc)[0];
}
Value MergeDims(GraphBuilder& g, Value x, int dim, SourceLoc loc) {
  return g.Add(std::make_shared<MergeDimsOp>(dim), {x}, loc)[0];
}
Value Slice(GraphBuilder& g, Value x, int dim, int part, int parts, SourceLoc loc) {
  return g.Add(std::make_shared<SliceOp>(Piece{dim, part, parts}), {x}, loc)[0];
}
Value PadSlice(GraphBuilder& g, Value piece, int dim, int part, int parts, SourceLoc loc) {
  return g.Add(std::make_shared<PadSliceOp>(Piece{dim, part, parts}), {piece}, loc)[0];
}
Value Concat(GraphBuilder& g, std::vector<Value> values, int dim, SourceLoc loc) {
  return g.Add(std::make_shared<ConcatOp>(dim), std::move(values), loc)[0];
}
Value Cast(GraphBuilder& g, Value x, DType dtype, SourceLoc loc) {
  if (x.valid() && g.spec(x).dtype == dtype) return x;
  return g.Add(std::make_shared<CastOp>(dtype), {x}, loc)[0];
}
Value ReduceSum(GraphBuilder& g, Value x, int dim, SourceLoc loc) {
  if (dim < 0) g.Fail(absl::InvalidArgumentError(absl::StrFormat("reduce_sum: no dim %d", dim)), loc);
  return g.Add(std::make_shared<ReduceSumOp>(dim), {x}, loc)[0];
}
Value ReduceSumAll(GraphBuilder& g, Value x, SourceLoc loc) {
  return g.Add(std::make_shared<ReduceSumOp>(-1), {x}, loc)[0];
}
Value Broadcast(GraphBuilder& g, Value x, Value like, int dim, SourceLoc loc) {
  if (dim < 0) g.Fail(absl::InvalidArgumentError(absl::StrFormat("broadcast: no dim %d", dim)), loc);
  return g.Add(std::make_shared<BroadcastOp>(dim), {x, like}, loc)[0];
}
Value BroadcastAll(GraphBuilder& g, Value scalar, Value like, SourceLoc loc) {
  return g.Add(std::make_shared<BroadcastOp>(-1), {scalar, like}, loc)[0];
}

Piece PieceOf(const Op& op) { return static_cast<const PieceOp&>(op).piece(); }
int DimOf(const Op& op) { return static_cast<const DimOp&>(op).dim(); }

}  // namespace strata
