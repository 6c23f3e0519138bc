#include "core/ops/elementwise.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

using Values = absl::StatusOr<std::vector<Value>>;

enum class PartialRule : uint8_t { kStops, kPasses };

// num_in operands and num_out results, all alike.
class ElementwiseOp : public Op {
 public:
  ElementwiseOp(std::string_view name, int num_in, int num_out, PartialRule partial)
      : name_(name), num_in_(num_in), num_out_(num_out), partial_(partial) {}
  std::string_view name() const override { return name_; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectAlike(in, num_in_));
    return std::vector<TensorSpec>(num_out_, {in[0].dtype, in[0].shape, {}});
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    std::vector<ShardRule> rules = ElementwiseRules(in[0].shape.rank, num_in_, num_out_);
    if (partial_ == PartialRule::kPasses) {
      rules.push_back({std::vector<Placement>(num_in_, Partial()), std::vector<Placement>(num_out_, Partial())});
    }
    return rules;
  }
  bool MayOverwrite(int) const override { return Aliases(0) < 0; }

 private:
  std::string_view name_;
  int num_in_, num_out_;
  PartialRule partial_;
};

class AddOp final : public ElementwiseOp {
 public:
  AddOp() : ElementwiseOp("add", 2, 1, PartialRule::kPasses) {}
  Values Vjp(const VjpArgs& a) const override { return std::vector<Value>{a.grads[0], a.grads[0]}; }
};

class MulOp final : public ElementwiseOp {
 public:
  MulOp() : ElementwiseOp("mul", 2, 1, PartialRule::kStops) {}
  Values Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{Mul(a.g, a.grads[0], a.inputs[1], a.node.loc),
                              Mul(a.g, a.grads[0], a.inputs[0], a.node.loc)};
  }
};

class ScaleOp final : public ElementwiseOp {
 public:
  explicit ScaleOp(double factor) : ElementwiseOp("scale", 1, 1, PartialRule::kPasses), factor_(factor) {}
  std::string attributes() const override { return absl::StrFormat("factor=%.17g", factor_); }
  Values Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{Scale(a.g, a.grads[0], factor_, a.node.loc)};
  }
  double factor() const { return factor_; }

 private:
  double factor_;
};

class IdentityOp final : public ElementwiseOp {
 public:
  IdentityOp() : ElementwiseOp("identity", 1, 1, PartialRule::kPasses) {}
  Values Vjp(const VjpArgs& a) const override { return std::vector<Value>{Identity(a.g, a.grads[0], a.node.loc)}; }
  int Aliases(int) const override { return 0; }
  bool IsView() const override { return true; }
};

class SiluOp final : public ElementwiseOp {
 public:
  SiluOp() : ElementwiseOp("silu", 1, 1, PartialRule::kStops) {}
  Values Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{SiluDx(a.g, a.grads[0], a.inputs[0], a.node.loc)};
  }
};

class SiluDxOp final : public ElementwiseOp {
 public:
  SiluDxOp() : ElementwiseOp("silu_dx", 2, 1, PartialRule::kStops) {}
};

class SwigluOp final : public ElementwiseOp {
 public:
  SwigluOp() : ElementwiseOp("swiglu", 2, 1, PartialRule::kStops) {}
  Values Vjp(const VjpArgs& a) const override {
    const SwigluGrads d = SwigluDx(a.g, a.grads[0], a.inputs[0], a.inputs[1], a.node.loc);
    return std::vector<Value>{d.gate, d.up};
  }
  Values Decompose(GraphBuilder& g, std::span<const Value> in) const override {
    return std::vector<Value>{Mul(g, Silu(g, in[0]), in[1])};
  }
};

class SwigluDxOp final : public ElementwiseOp {
 public:
  SwigluDxOp() : ElementwiseOp("swiglu_dx", 3, 2, PartialRule::kStops) {}
  Values Decompose(GraphBuilder& g, std::span<const Value> in) const override {
    const Value dy = in[0], gate = in[1], up = in[2];
    return std::vector<Value>{SiluDx(g, Mul(g, dy, up), gate), Mul(g, dy, Silu(g, gate))};
  }
};

class AccumulateOp final : public ElementwiseOp {
 public:
  AccumulateOp() : ElementwiseOp("accumulate", 2, 1, PartialRule::kPasses) {}
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 2));
    const bool rounded = in[0].dtype == DType::kBF16 && (in[1].dtype == DType::kF32 || in[1].dtype == DType::kBF16);
    if (!IsFloating(in[1].dtype) || (in[0].dtype != AccumulatorOf(in[1].dtype) && !rounded)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("cannot add %s to an accumulator of %s", Name(in[1].dtype), Name(in[0].dtype)));
    }
    if (in[0].shape != in[1].shape) return absl::InvalidArgumentError("operands differ in shape");
    return std::vector<TensorSpec>{{in[0].dtype, in[0].shape, {}}};
  }
  int Aliases(int) const override { return 0; }
};

}  // namespace

Value Add(GraphBuilder& g, Value a, Value b, SourceLoc loc) { return g.Add(std::make_shared<AddOp>(), {a, b}, loc)[0]; }
Value Mul(GraphBuilder& g, Value a, Value b, SourceLoc loc) { return g.Add(std::make_shared<MulOp>(), {a, b}, loc)[0]; }
Value Scale(GraphBuilder& g, Value a, double factor, SourceLoc loc) {
  return g.Add(std::make_shared<ScaleOp>(factor), {a}, loc)[0];
}
Value Identity(GraphBuilder& g, Value a, SourceLoc loc) { return g.Add(std::make_shared<IdentityOp>(), {a}, loc)[0]; }
Value Silu(GraphBuilder& g, Value a, SourceLoc loc) { return g.Add(std::make_shared<SiluOp>(), {a}, loc)[0]; }
Value SiluDx(GraphBuilder& g, Value dy, Value a, SourceLoc loc) {
  return g.Add(std::make_shared<SiluDxOp>(), {dy, a}, loc)[0];
}
Value Swiglu(GraphBuilder& g, Value gate, Value up, SourceLoc loc) {
  return g.Add(std::make_shared<SwigluOp>(), {gate, up}, loc)[0];
}
SwigluGrads SwigluDx(GraphBuilder& g, Value dy, Value gate, Value up, SourceLoc loc) {
  const std::vector<Value> d = g.Add(std::make_shared<SwigluDxOp>(), {dy, gate, up}, loc);
  return {d[0], d[1]};
}
Value Accumulate(GraphBuilder& g, Value acc, Value x, SourceLoc loc) {
  return g.Add(std::make_shared<AccumulateOp>(), {acc, x}, loc)[0];
}

double ScaleFactor(const Op& scale) { return static_cast<const ScaleOp&>(scale).factor(); }

}  // namespace strata
