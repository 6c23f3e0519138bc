// What cuBLASLt makes of a product before it rounds, against float64 on the CPU.
#include "core/kernels/gemm_cuda.h"

#include <cmath>
#include <memory>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/bias.h"
#include "core/ops/gelu.h"
#include "core/ops/linear.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

// A GPU with the operands of one product.
class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> Open() {
    auto bench = std::unique_ptr<Bench>(new Bench);
    ASSIGN_OR_RETURN(bench->device_, CudaDevice::Open(0));
    ASSIGN_OR_RETURN(bench->stream_, bench->device_->NewStream("test", Priority::kNormal));
    ASSIGN_OR_RETURN(bench->gemms_, GemmPlans::Open(bench->device_->context()));
    return bench;
  }
  absl::StatusOr<std::byte*> Make(int64_t bytes) { return device_->Reserve(Tier::kDevice, bytes); }
  absl::Status Upload(void* to, const Tensor& t) {
    return device_->Copy(to, t.data.data(), static_cast<int64_t>(t.data.size()), stream_);
  }
  absl::StatusOr<Tensor> Download(const void* from, Shape shape) {
    Tensor t = Tensor::Zeros(DType::kBF16, shape);
    RETURN_IF_ERROR(device_->Copy(t.data.data(), from, static_cast<int64_t>(t.data.size()), stream_));
    RETURN_IF_ERROR(device_->Drain());
    return t;
  }
  GemmPlans& gemms() { return *gemms_; }
  cudaStream_t stream() const { return static_cast<cudaStream_t>(stream_.native); }

 private:
  Bench() = default;
  std::unique_ptr<CudaDevice> device_;
  Stream stream_;
  std::shared_ptr<GemmPlans> gemms_;
};

Tensor Rounded(const Shape& shape, uint64_t seed, double scale = 1) {
  return Converted(Tensor::Random(DType::kF64, shape, seed, scale), DType::kBF16);
}

double Error(const Tensor& got, const Tensor& want) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < want.size(); ++i) {
    difference += (got.at(i) - want.at(i)) * (got.at(i) - want.at(i));
    norm += want.at(i) * want.at(i);
  }
  return std::sqrt(difference / norm);
}

struct Sizes {
  int64_t m, n, k;
};
constexpr Sizes kSizes[] = {{96, 64, 128}, {200, 768, 192}, {77, 344, 72}};

struct Product {
  Tensor d, other;  // h of kGelu, or pre as it is after kGeluDx
};
// D of x[m, k] and w by a shape that is completed here.
absl::StatusOr<Product> Multiply(GemmShape shape, const Tensor& x, const Tensor& w, const Tensor* bias,
                                 const Tensor* pre) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Bench> bench, Bench::Open());
  const int64_t d_bytes = shape.m * shape.n * 2;
  GemmPlans::Operands o{};
  std::byte* at[5] = {};
  const int64_t bytes[] = {shape.m * shape.k * 2, shape.k * shape.n * 2, shape.n * 2, d_bytes, d_bytes};
  for (int i = 0; i < 5; ++i) {
    ASSIGN_OR_RETURN(at[i], bench->Make(bytes[i]));
  }
  ASSIGN_OR_RETURN(std::byte* const workspace, bench->Make(kGemmWorkspaceBytes));
  o = {at[0],          at[1], nullptr, bias != nullptr ? at[2] : nullptr, at[3], 0, {workspace, kGemmWorkspaceBytes},
       bench->stream()};
  if (shape.fusion == GemmFusion::kGelu) o.h = at[4];
  if (shape.fusion == GemmFusion::kGeluDx) o.pre = at[4];
  shape.bias = bias != nullptr;
  RETURN_IF_ERROR(bench->gemms().Prepare(shape, o, GemmPlans::Search::kTimed));
  RETURN_IF_ERROR(bench->Upload(at[0], x));
  RETURN_IF_ERROR(bench->Upload(at[1], w));
  if (bias != nullptr) RETURN_IF_ERROR(bench->Upload(at[2], *bias));
  if (pre != nullptr) RETURN_IF_ERROR(bench->Upload(at[4], *pre));
  RETURN_IF_ERROR(bench->gemms().Run(shape, o));
  Product p;
  ASSIGN_OR_RETURN(p.d, bench->Download(at[3], {shape.m, shape.n}));
  ASSIGN_OR_RETURN(p.other, bench->Download(at[4], {shape.m, shape.n}));
  return p;
}

std::vector<Tensor> InFloat64(const GraphFn& fn, const std::vector<Tensor>& inputs) {
  std::vector<Tensor> wide;
  for (const Tensor& t : inputs) wide.push_back(Converted(t, DType::kF64));
  const auto out = Call(fn, wide);
  EXPECT_TRUE(out.ok()) << out.status();
  return out.ok() ? *out : std::vector<Tensor>(2, wide[0]);
}

TEST(CudaGemm, GeluBeforeTheRounding) {
  STRATA_NEEDS_GPU();
  for (const auto& [m, n, k] : kSizes) {
    SCOPED_TRACE(absl::StrFormat("%d x %d x %d", m, n, k));
    const Tensor x = Rounded({m, k}, 1), w = Rounded({n, k}, 2, 2 / std::sqrt(static_cast<double>(k))),
                 bias = Rounded({n}, 3);
    GemmShape shape{m, n, k, false, true};
    shape.fusion = GemmFusion::kGelu;
    const auto got = Multiply(shape, x, w, &bias, nullptr);
    ASSERT_TRUE(got.ok()) << got.status();
    const std::vector<Tensor> want = InFloat64(
        [](GraphBuilder& g, const Values& in) {
          const Value pre = BiasAdd(g, Linear(g, in[0], in[1]), in[2]);
          return Values{pre, Gelu(g, pre, GeluKind::kTanh)};
        },
        {x, w, bias});
    EXPECT_LE(Error(got->d, want[0]), GpuTolerance(DType::kBF16));
    EXPECT_LE(Error(got->other, want[1]), GpuTolerance(DType::kBF16));
  }
}

TEST(CudaGemm, GradientOfGeluBeforeTheRounding) {
  STRATA_NEEDS_GPU();
  for (const auto& [m, n, k] : kSizes) {
    SCOPED_TRACE(absl::StrFormat("%d x %d x %d", m, n, k));
    const Tensor dy = Rounded({m, k}, 1), w = Rounded({k, n}, 2, 1 / std::sqrt(static_cast<double>(k))),
                 pre = Rounded({m, n}, 3, 2);
    GemmShape shape{m, n, k, false, false};
    shape.fusion = GemmFusion::kGeluDx;
    const auto got = Multiply(shape, dy, w, nullptr, &pre);
    ASSERT_TRUE(got.ok()) << got.status();
    const std::vector<Tensor> want =
        InFloat64([](GraphBuilder& g,
                     const Values& in) { return Values{GeluDx(g, LinearDx(g, in[0], in[1]), in[2], GeluKind::kTanh)}; },
                  {dy, w, pre});
    EXPECT_LE(Error(got->d, want[0]), GpuTolerance(DType::kBF16));
    EXPECT_TRUE(got->other.data == pre.data) << "which is only read";
  }
}

}  // namespace
}  // namespace strata::testing
