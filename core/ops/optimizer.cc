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
    return {{std::vector<Placement>(in.size()), std::vector<Placement>(NumOutputs(in.size()))}};
  }

 protected:
  virtual size_t NumOutputs(size_t /*inputs*/) const { return 1; }
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
    return std::vector<TensorSpec>{{AccumulatorOf(in[0].dtype), {}, {}}};
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

// An update in place: weights, grads, states, norm and, optional, live -> weights, states, live.
class UpdateOp : public FlatOp {
 public:
  Specs Infer(std::span<const TensorSpec> in) const override {
    const size_t states = num_states_, norm = 2 + states, live = norm + 1;
    RETURN_IF_ERROR(ExpectArity(in, in.size() == live + 1 ? live + 1 : live));
    std::vector<TensorSpec> flat(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(norm));
    const bool split = in[0].dtype == DType::kLow16;
    if (split) flat[0].dtype = DType::kF32;
    const DType sums = flat[0].dtype;
    if (sums == DType::kF32 && in[1].dtype == DType::kBF16) flat[1].dtype = DType::kF32;
    RETURN_IF_ERROR(ExpectAlike(flat, norm));
    if (in[norm].shape != Shape{} || in[norm].dtype != sums) {
      return absl::InvalidArgumentError("the norm is one scalar");
    }
    std::vector<TensorSpec> out(1 + states, {sums, in[0].shape, {}});
    out[0].dtype = in[0].dtype;
    if (split && in.size() == live) return absl::InvalidArgumentError("halves of weights have live weights");
    if (in.size() == live + 1) {
      if (in[live].dtype != DType::kBF16 || in[live].shape != in[0].shape || sums != DType::kF32) {
        return absl::InvalidArgumentError("live weights are bf16 in the shape of their f32 master");
      }
      out.push_back({in[live].dtype, in[live].shape, {}});
    }
    int64_t end = 0;
    for (const DecayRange& s : segments()) {
      RETURN_IF_ERROR(CheckRange(s.range, end, in[0].shape.elements()));
      end = s.range.offset + s.range.count;
    }
    return out;
  }
  int Aliases(int output) const override {
    if (output == 0) return 0;
    return output <= static_cast<int>(num_states_) ? output + 1 : static_cast<int>(num_states_) + 3;
  }

 protected:
  explicit UpdateOp(size_t num_states) : num_states_(num_states) {}
  virtual std::span<const DecayRange> segments() const = 0;
  size_t NumOutputs(size_t inputs) const override { return inputs - 2; }
  std::string DecayText() const {
    std::string s = "decay=";
    for (const DecayRange& seg : segments()) {
      s += absl::StrFormat("%s%s*%g", &seg == segments().data() ? "" : ",", ToString(seg.range), seg.decay);
    }
    return s;
  }

 private:
  size_t num_states_;
};

class AdamWOp final : public UpdateOp {
 public:
  explicit AdamWOp(AdamWSpec spec) : UpdateOp(2), spec_(std::move(spec)) {}
  std::string_view name() const override { return "adamw"; }
  std::string attributes() const override {
    return absl::StrFormat("beta1=%g beta2=%g eps=%g max_norm=%g %s", spec_.beta1, spec_.beta2, spec_.eps,
                           spec_.max_norm, DecayText());
  }
  const AdamWSpec& spec() const { return spec_; }

 private:
  std::span<const DecayRange> segments() const override { return spec_.segments; }
  AdamWSpec spec_;
};

class SgdOp final : public UpdateOp {
 public:
  explicit SgdOp(SgdSpec spec) : UpdateOp(1), spec_(std::move(spec)) {}
  std::string_view name() const override { return "sgd"; }
  std::string attributes() const override {
    return absl::StrFormat("momentum=%g%s max_norm=%g %s", spec_.momentum, spec_.nesterov ? " nesterov" : "",
                           spec_.max_norm, DecayText());
  }
  const SgdSpec& spec() const { return spec_; }

 private:
  std::span<const DecayRange> segments() const override { return spec_.segments; }
  SgdSpec spec_;
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

SgdResults Sgd(GraphBuilder& g, SgdSpec spec, const SgdOperands& in, SourceLoc loc) {
  std::vector<Value> operands = {in.weights, in.grads, in.u, in.norm};
  if (in.live.valid()) operands.push_back(in.live);
  const std::vector<Value> out = g.Add(std::make_shared<SgdOp>(std::move(spec)), operands, loc);
  return {out[0], out[1], in.live.valid() ? out[2] : Value{}};
}

std::span<const FlatRange> SumSquaresRanges(const Op& op) { return static_cast<const SumSquaresOp&>(op).ranges(); }
const AdamWSpec& AdamWSpecOf(const Op& op) { return static_cast<const AdamWOp&>(op).spec(); }
const SgdSpec& SgdSpecOf(const Op& op) { return static_cast<const SgdOp&>(op).spec(); }

}  // namespace strata
