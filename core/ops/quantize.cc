#include "core/ops/quantize.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

using Specs = absl::StatusOr<std::vector<TensorSpec>>;

class QuantizeOp final : public Op {
 public:
  explicit QuantizeOp(const QuantSpec& spec) : spec_(spec) {}
  std::string_view name() const override { return "quantize"; }
  std::string attributes() const override {
    return absl::StrFormat("bits=%d rows=%d", static_cast<int>(spec_.bits), spec_.rows);
  }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 1));
    const int64_t n = in[0].shape.elements();
    if (in[0].shape.rank != 1 || !IsFloating(in[0].dtype)) return absl::InvalidArgumentError("takes a flat tensor");
    if (n % kQuantBlock != 0) {
      return absl::InvalidArgumentError(absl::StrFormat("%d elements are not whole blocks of %d", n, kQuantBlock));
    }
    const int64_t bytes = QuantizedBytes(n, spec_.bits);
    return std::vector<TensorSpec>{{DType::kU8, spec_.rows == 0 ? Shape{bytes} : Shape{spec_.rows, bytes}, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
  const QuantSpec& spec() const { return spec_; }

 private:
  QuantSpec spec_;
};

// dequantize: of [bytes]; dequantize_sum: of [rows, bytes].
class DequantizeOp final : public Op {
 public:
  DequantizeOp(std::string_view name, int rank, QuantBits bits, DType dtype)
      : name_(name), rank_(rank), bits_(bits), dtype_(dtype) {}
  std::string_view name() const override { return name_; }
  std::string attributes() const override {
    return absl::StrFormat("bits=%d %s", static_cast<int>(bits_), Name(dtype_));
  }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 1));
    const Shape& s = in[0].shape;
    if (in[0].dtype != DType::kU8 || s.rank != rank_ || s.back() % RecordBytes(bits_) != 0) {
      return absl::InvalidArgumentError("takes records of quantised blocks");
    }
    return std::vector<TensorSpec>{{dtype_, {s.back() / RecordBytes(bits_) * kQuantBlock}, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
  QuantBits bits() const { return bits_; }

 private:
  std::string_view name_;
  int rank_;
  QuantBits bits_;
  DType dtype_;
};

}  // namespace

Value Quantize(GraphBuilder& g, Value flat, const QuantSpec& spec, SourceLoc loc) {
  return g.Add(std::make_shared<QuantizeOp>(spec), {flat}, loc)[0];
}
Value Dequantize(GraphBuilder& g, Value bytes, QuantBits bits, DType dtype, SourceLoc loc) {
  return g.Add(std::make_shared<DequantizeOp>("dequantize", 1, bits, dtype), {bytes}, loc)[0];
}
Value DequantizeSum(GraphBuilder& g, Value rows, QuantBits bits, DType dtype, SourceLoc loc) {
  return g.Add(std::make_shared<DequantizeOp>("dequantize_sum", 2, bits, dtype), {rows}, loc)[0];
}

const QuantSpec& QuantSpecOf(const Op& op) { return static_cast<const QuantizeOp&>(op).spec(); }
QuantBits QuantBitsOf(const Op& op) { return static_cast<const DequantizeOp&>(op).bits(); }

}  // namespace strata
