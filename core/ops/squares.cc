#include "core/ops/squares.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

using Specs = absl::StatusOr<std::vector<TensorSpec>>;

class SquarePartsOp final : public Op {
 public:
  std::string_view name() const override { return "square_parts"; }
  Specs Infer(std::span<const TensorSpec> in) const override {
    if (in.empty() || !IsFloating(in[0].dtype)) return absl::InvalidArgumentError("takes tensors of a floating dtype");
    for (const TensorSpec& t : in) {
      if (t.dtype != in[0].dtype) return absl::InvalidArgumentError("takes tensors of one dtype");
    }
    return std::vector<TensorSpec>{{AccumulatorOf(in[0].dtype), {kSquareParts}, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
};

class TotalSquaresOp final : public Op {
 public:
  explicit TotalSquaresOp(std::vector<std::vector<FlatRange>> ranges) : ranges_(std::move(ranges)) {}
  std::string_view name() const override { return "total_squares"; }
  std::string attributes() const override {
    std::string s = "ranges=";
    for (const auto& flat : ranges_) {
      s += &flat == ranges_.data() ? "" : ";";
      for (const FlatRange& r : flat) {
        s += absl::StrFormat("%s%d+%d", &r == flat.data() ? "" : ",", r.offset, r.count);
      }
    }
    return s;
  }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 1 + ranges_.size()));
    if (in[0].shape.rank != 1 || !IsFloating(in[0].dtype)) return absl::InvalidArgumentError("takes a row of parts");
    for (size_t i = 0; i < ranges_.size(); ++i) {
      const TensorSpec& flat = in[1 + i];
      if (AccumulatorOf(flat.dtype) != in[0].dtype) return absl::InvalidArgumentError("parts have another dtype");
      int64_t end = 0;
      for (const FlatRange& r : ranges_[i]) {
        if (r.offset < end || r.count < 0 || r.offset + r.count > flat.shape.elements()) {
          return absl::InvalidArgumentError(absl::StrFormat("range %d+%d of %d elements overlaps or ends outside",
                                                            r.offset, r.count, flat.shape.elements()));
        }
        end = r.offset + r.count;
      }
    }
    return std::vector<TensorSpec>{{in[0].dtype, {}, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
  std::span<const FlatRange> ranges(size_t i) const { return ranges_[i]; }

 private:
  std::vector<std::vector<FlatRange>> ranges_;  // by flat tensor
};

}  // namespace

Value SquareParts(GraphBuilder& g, std::span<const Value> tensors, SourceLoc loc) {
  return g.Add(std::make_shared<SquarePartsOp>(), {tensors.begin(), tensors.end()}, loc)[0];
}

Value TotalSquares(GraphBuilder& g, Value parts, std::vector<SquaredRanges> flats, SourceLoc loc) {
  std::vector<Value> in = {parts};
  std::vector<std::vector<FlatRange>> ranges;
  for (SquaredRanges& f : flats) {
    in.push_back(f.flat);
    ranges.push_back(std::move(f.ranges));
  }
  return g.Add(std::make_shared<TotalSquaresOp>(std::move(ranges)), std::move(in), loc)[0];
}

std::span<const FlatRange> TotalSquaresRanges(const Op& op, size_t i) {
  return static_cast<const TotalSquaresOp&>(op).ranges(i);
}

}  // namespace strata
