#pragma once
// Between parameters and the flat buckets they lie in (core/plan/bucket.h). Emitted by the bucket pass, after sharding: the
// flat tensor is whole on the rank, offsets and counts are its local elements.

#include <vector>

#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata {

// A tensor of the global shape `shape`, whose local elements are those of `flat` from `offset` on. No kernel runs.
class FlatViewOp final : public Op {
 public:
  FlatViewOp(int64_t offset, const Shape& shape) : offset_(offset), shape_(shape) {}
  std::string_view name() const override { return "flat_view"; }
  std::string attributes() const override;
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override;
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
  int Aliases(int) const override { return 0; }
  bool IsView() const override { return true; }
  int64_t offset() const { return offset_; }

 private:
  int64_t offset_;
  Shape shape_;
};

// A flat tensor of `elements`: part i from offsets[i] on, zeros elsewhere. Parts have its dtype, or are f32 and rounded to
// bf16. Lowering makes the parts of its dtype in their places where it can; the kernel copies the others.
class PackOp final : public Op {
 public:
  PackOp(std::vector<int64_t> offsets, int64_t elements, DType dtype)
      : offsets_(std::move(offsets)), elements_(elements), dtype_(dtype) {}
  std::string_view name() const override { return "pack"; }
  std::string attributes() const override;
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override;
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
  const std::vector<int64_t>& offsets() const { return offsets_; }  // by part, ascending

 private:
  std::vector<int64_t> offsets_;
  int64_t elements_;
  DType dtype_;
};

// The layouts of the results are the caller's to set.
Value FlatView(GraphBuilder& g, Value flat, int64_t offset, const Shape& shape, SourceLoc loc = SourceLoc::Here());
Value Pack(GraphBuilder& g, std::vector<Value> parts, std::vector<int64_t> offsets, int64_t elements, DType dtype,
           SourceLoc loc = SourceLoc::Here());

const FlatViewOp* AsFlatView(const Node& node);  // null where the node is of another kind
const PackOp* AsPack(const Node& node);

}  // namespace strata
