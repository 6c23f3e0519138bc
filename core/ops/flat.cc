#include "core/ops/flat.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "core/ops/infer.h"

namespace strata {

std::string FlatViewOp::attributes() const { return absl::StrFormat("offset=%d %s", offset_, ToString(shape_)); }

absl::StatusOr<std::vector<TensorSpec>> FlatViewOp::Infer(std::span<const TensorSpec> in) const {
  RETURN_IF_ERROR(ExpectArity(in, 1));
  if (in[0].shape.rank != 1 || offset_ < 0) return absl::InvalidArgumentError("takes a flat tensor");
  return std::vector<TensorSpec>{{in[0].dtype, shape_, {}}};
}

std::string PackOp::attributes() const {
  return absl::StrFormat("offsets=%s elements=%d", absl::StrJoin(offsets_, ","), elements_);
}

absl::StatusOr<std::vector<TensorSpec>> PackOp::Infer(std::span<const TensorSpec> in) const {
  RETURN_IF_ERROR(ExpectArity(in, offsets_.size()));
  if (in.empty() || !std::is_sorted(offsets_.begin(), offsets_.end()) || offsets_[0] < 0) {
    return absl::InvalidArgumentError("takes parts in ascending order");
  }
  for (const TensorSpec& s : in) {
    if (s.dtype != dtype_ && !(s.dtype == DType::kF32 && dtype_ == DType::kBF16)) {
      return absl::InvalidArgumentError(absl::StrFormat("a part of %s in a %s tensor", Name(s.dtype), Name(dtype_)));
    }
  }
  return std::vector<TensorSpec>{{dtype_, {elements_}, {}}};
}

Value FlatView(GraphBuilder& g, Value flat, int64_t offset, const Shape& shape, SourceLoc loc) {
  return g.Add(std::make_shared<FlatViewOp>(offset, shape), {flat}, loc)[0];
}
Value Pack(GraphBuilder& g, std::vector<Value> parts, std::vector<int64_t> offsets, int64_t elements, DType dtype,
           SourceLoc loc) {
  return g.Add(std::make_shared<PackOp>(std::move(offsets), elements, dtype), std::move(parts), loc)[0];
}

const FlatViewOp* AsFlatView(const Node& node) { return dynamic_cast<const FlatViewOp*>(node.op.get()); }
const PackOp* AsPack(const Node& node) { return dynamic_cast<const PackOp*>(node.op.get()); }

}  // namespace strata
