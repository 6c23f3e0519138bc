#include "core/ops/optimizer.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

using Specs = absl::StatusOr<std::vector<TensorSpec>>;

std::string ToString(const FlatRange& r) { return absl::StrFormat("%d+%d", r.offset, r.count); }

class FlatOp : public Op {  // emitted after sharding: nothing to choose
 public:
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const size_t outputs = name() == "adamw" ? in.size() - 2 : 1;
    return {{std::vector<Placement>(in.size()), std::vector<Placement>(outputs)}};
  }

 protected:
  static absl::Status CheckRange(const FlatRange& r, int64_t after, int64_t size) {
    if (r.offset >= after && r.count >= 0 && r.offset + r.count <= size) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrFormat("range %s of %d elements overlaps or ends outside", ToString(r), size));
  }
};

class SumSquaresOp final : public FlatOp {
 public:
  explicit SumSquaresOp(std::vector<FlatRange> ranges) : ranges_(std::move(ranges)) {}
  std::string_view name() const override { return "sum_squares"; }
  std::string attributes() const override {
    std::string s = "ranges=";
    for (const FlatRange& r : ranges_) s += (&r == ranges_.data() ? "" : ",") + ToString(r);
    return s;
  }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectAlike(in, 1));
    int64_t end = 0;
    for (const FlatRange& r : ranges_) {
      RETURN_IF_ERROR(CheckRange(r, end, in[0].shape.elements()));
      end = r.offset + r.count;
    }
    return std::vector<TensorSpec>{{in[0].dtype, {}, {}}};
  }
  std::span<const FlatRange> ranges() const { return ranges_; }

 private:
  std::vector<FlatRange> ranges_;
};

class SqrtOp final : public FlatOp {
 public:
  std::string_view name() const override { return "sqrt"; }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectAlike(in, 1));
    return std::vector<TensorSpec>{{in[0].dtype, in[0].shape, {}}};
  }
};

class GuardOp final : public FlatOp {
 public:
  std::string_view name() const override { return "guard"; }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectAlike(in, 2));
    if (in[0].shape != Shape{}) return absl::InvalidArgumentError("norm and loss are scalars");
    return std::vector<TensorSpec>{{in[0].dtype, {}, {}}};
  }
};

class AdamWOp final : public FlatOp {
 public:
  explicit AdamWOp(AdamWSpec spec) : spec_(std::move(spec)) {}
  std::string_view name() const override { return "adamw"; }
  std::string attributes() const override {
    std::string s = absl::StrFormat("beta1=%g beta2=%g eps=%g max_norm=%g decay=", spec_.beta1, spec_.beta2, spec_.eps,
                                    spec_.max_norm);
    for (const AdamWSpec::Segment& seg : spec_.segments) {
      s += absl::StrFormat("%s%s*%g", &seg == spec_.segments.data() ? "" : ",", ToString(seg.range), seg.decay);
    }
    return s;
  }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, in.size() == 6 ? 6 : 5));
    RETURN_IF_ERROR(ExpectAlike(in.first(4), 4));
    if (in[4].shape != Shape{} || in[4].dtype != in[0].dtype)
      return absl::InvalidArgumentError("the norm is one scalar");
    std::vector<TensorSpec> out(3, {in[0].dtype, in[0].shape, {}});
    if (in.size() == 6) {
      if (in[5].dtype != DType::kBF16 || in[5].shape != in[0].shape || in[0].dtype != DType::kF32) {
        return absl::InvalidArgumentError("live weights are bf16 in the shape of their f32 master");
      }
      out.push_back({in[5].dtype, in[5].shape, {}});
    }
    int64_t end = 0;
    for (const AdamWSpec::Segment& s : spec_.segments) {
      RETURN_IF_ERROR(CheckRange(s.range, end, in[0].shape.elements()));
      end = s.range.offset + s.range.count;
    }
    return out;
  }
  int Aliases(int output) const override {
    constexpr int kInput[] = {0, 2, 3, 5};
    return kInput[output];
  }
  const AdamWSpec& spec() const { return spec_; }

 private:
  AdamWSpec spec_;
};

}  // namespace

Value SumSquares(GraphBuilder& g, Value flat, std::vector<FlatRange> ranges, SourceLoc loc) {
  return g.Add(std::make_shared<SumSquaresOp>(std::move(ranges)), {flat}, loc)[0];
}
Value Sqrt(GraphBuilder& g, Value x, SourceLoc loc) { return g.Add(std::make_shared<SqrtOp>(), {x}, loc)[0]; }
Value Guard(GraphBuilder& g, Value norm, Value loss, SourceLoc loc) {
  return g.Add(std::make_shared<GuardOp>(), {norm, loss}, loc)[0];
}

AdamWResults AdamW(GraphBuilder& g, AdamWSpec spec, const AdamWOperands& in, SourceLoc loc) {
  std::vector<Value> operands = {in.weights, in.grads, in.m, in.v, in.norm};
  if (in.live.valid()) operands.push_back(in.live);
  const std::vector<Value> out = g.Add(std::make_shared<AdamWOp>(std::move(spec)), operands, loc);
  return {out[0], out[1], out[2], in.live.valid() ? out[3] : Value{}};
}

std::span<const FlatRange> SumSquaresRanges(const Op& op) { return static_cast<const SumSquaresOp&>(op).ranges(); }
const AdamWSpec& AdamWSpecOf(const Op& op) { return static_cast<const AdamWOp&>(op).spec(); }

}  // namespace strata
