// linear and its kin (core/ops/linear.h, core/ops/fused.h) as matrix products of rows: with M rows, y[M, N] = x[M, K] W^T;
// dx[M, K] = dy[M, N] W; dW[N, K] = dy^T x. Packed weights are one matrix: their storage is adjacent.

#include "core/kernels/linear_cuda.h"
#include "core/base/status.h"
#include "core/kernels/cuda_kernels.h"
#include "core/kernels/product_cost.h"
#include "core/kernels/squares_cuda.h"
#include "core/ops/fused.h"

namespace strata {
namespace {

int64_t Rows(const TensorRef& x) { return x.shape.elements() / x.shape.back(); }

struct Product {
  GemmShape shape;
  const void *a, *b, *c = nullptr;
  void* d;
  float beta = 0;
  const void* bias = nullptr;
};
using Describe = absl::StatusOr<Product> (*)(const KernelArgs&);

absl::StatusOr<Product> Forward(const KernelArgs& a) {  // x, w...
  ASSIGN_OR_RETURN(const int64_t n, RowsOfPacked(a.in.subspan(1)));
  const TensorRef &x = a.in[0], &w = a.in[1];
  return Product{
      {Rows(x), n, x.shape.back(), false, true, x.dtype, a.out[0].dtype}, x.data, w.data, nullptr, a.out[0].data};
}

absl::StatusOr<Product> ForwardAdd(const KernelArgs& a) {  // x, w, r
  const TensorRef &x = a.in[0], &w = a.in[1];
  return Product{{Rows(x), w.shape[0], x.shape.back(), false, true, x.dtype, a.out[0].dtype},
                 x.data,
                 w.data,
                 a.in[2].data,
                 a.out[0].data,
                 1};
}

absl::StatusOr<Product> ForwardBias(const KernelArgs& a) {  // x, w, bias(, r)
  const TensorRef &x = a.in[0], &w = a.in[1];
  Product p{{Rows(x), w.shape[0], x.shape.back(), false, true, x.dtype, a.out[0].dtype},
            x.data,
            w.data,
            nullptr,
            a.out[0].data};
  p.bias = a.in[2].data;
  if (a.in.size() > 3) {
    p.c = a.in[3].data;
    p.beta = 1;
  }
  return p;
}

absl::StatusOr<Product> PackedBias(const KernelArgs& a) {  // x, w..., bias...
  const size_t n = a.in.size() / 2;
  ASSIGN_OR_RETURN(const int64_t width, RowsOfPacked(a.in.subspan(1, n)));
  RETURN_IF_ERROR(RowsOfPacked(a.in.subspan(1 + n)).status());
  const TensorRef &x = a.in[0], &w = a.in[1];
  Product p{
      {Rows(x), width, x.shape.back(), false, true, x.dtype, a.out[0].dtype}, x.data, w.data, nullptr, a.out[0].data};
  p.bias = a.in[1 + n].data;
  return p;
}

absl::StatusOr<Product> Dx(const KernelArgs& a) {  // dy, w...
  ASSIGN_OR_RETURN(const int64_t n, RowsOfPacked(a.in.subspan(1)));
  const TensorRef &dy = a.in[0], &w = a.in[1];
  return Product{
      {Rows(dy), w.shape[1], n, false, false, dy.dtype, a.out[0].dtype}, dy.data, w.data, nullptr, a.out[0].data};
}

absl::StatusOr<Product> DxAdd(const KernelArgs& a) {  // dy, r, w...
  ASSIGN_OR_RETURN(const int64_t n, RowsOfPacked(a.in.subspan(2)));
  const TensorRef &dy = a.in[0], &w = a.in[2];
  return Product{{Rows(dy), w.shape[1], n, false, false, dy.dtype, a.out[0].dtype},
                 dy.data,
                 w.data,
                 a.in[1].data,
                 a.out[0].data,
                 1};
}

absl::StatusOr<Product> Dw(const KernelArgs& a) {  // dy, x
  const TensorRef &dy = a.in[0], &x = a.in[1];
  return Product{{dy.shape.back(), x.shape.back(), Rows(x), true, false, x.dtype, a.out[0].dtype},
                 dy.data,
                 x.data,
                 nullptr,
                 a.out[0].data};
}

absl::StatusOr<Product> DwAcc(const KernelArgs& a) {  // accs..., dy, x
  ASSIGN_OR_RETURN(const int64_t n, RowsOfPacked(a.out));
  const TensorRef &dy = a.in[a.in.size() - 2], &x = a.in.back();
  const bool adds = FusedAttributesOf(a.op).always_add || !a.overwrite;
  return Product{{n, x.shape.back(), Rows(x), true, false, x.dtype, a.out[0].dtype},
                 dy.data,
                 x.data,
                 nullptr,
                 a.out[0].data,
                 adds ? 1.0f : 0.0f};
}

// Calls `use` with the plans of this GPU and the product of these operands. cuBLASLt 13.1 rounds a bf16 product before it adds it to
// what lies in the place of the result, and only the sum where the addend lies elsewhere; which of them it is the plan chooses.
// Where bits must repeat, the addend is put in place always.
template <Describe kDescribe, Determinism kDeterminism, typename Use>
absl::Status With(const KernelArgs& a, const Use& use) {
  ASSIGN_OR_RETURN(Product p, kDescribe(a));
  if (kDeterminism == Determinism::kBitExact && p.c != nullptr && p.c != p.d) {
    RETURN_IF_ERROR(a.device->Copy(p.d, p.c, a.out[0].bytes(), a.stream));
    p.c = p.d;
  }
  p.shape.align = AlignmentOf({p.a, p.b, p.c, p.bias, p.d});
  p.shape.bias = p.bias != nullptr;
  ASSIGN_OR_RETURN(GemmPlans* const gemms, GemmPlansOf(a));
  return use(*gemms, p.shape, GemmPlans::Operands{p.a, p.b, p.c, p.bias, p.d, p.beta, a.workspace, StreamOf(a)});
}

// Which algorithm is fastest differs from run to run, and with it the last bits.
template <Describe kDescribe, Determinism kDeterminism>
absl::Status Prepare(const KernelArgs& a) {
  constexpr auto kSearch =
      kDeterminism == Determinism::kBitExact ? GemmPlans::Search::kFirst : GemmPlans::Search::kTimed;
  return With<kDescribe, kDeterminism>(
      a, [](GemmPlans& g, const GemmShape& s, const GemmPlans::Operands& o) { return g.Prepare(s, o, kSearch); });
}
template <Describe kDescribe, Determinism kDeterminism>
absl::Status Run(const KernelArgs& a) {
  return With<kDescribe, kDeterminism>(
      a, [](GemmPlans& g, const GemmShape& s, const GemmPlans::Operands& o) { return g.Run(s, o); });
}

// linear_dw_acc_squares: accs..., squares, dy, x -> accs..., squares
absl::StatusOr<Product> DwAccSquares(const KernelArgs& a) {
  KernelArgs product = a;
  product.out = a.out.first(a.out.size() - 1);
  return DwAcc(product);
}

absl::Status ThenSquares(const KernelArgs& a, GemmPlans& g, const GemmShape& s, const GemmPlans::Operands& o) {
  RETURN_IF_ERROR(g.Run(s, o));
  return LaunchSquareParts(o.d, s.out, s.m * s.n, a.out.back().as<float>(), o.stream);
}

// In one kernel: of a product that is not added.
struct Squared {
  GemmShape shape;
  GemmPlans::Operands operands;
};
Squared SquaredOf(const KernelArgs& a, GemmShape s, GemmPlans::Operands o) {
  s.fusion = GemmFusion::kSquares;
  o.beta = 0;
  o.sums = a.out.back().as<float>();
  return {s, o};
}

template <Determinism kDeterminism>
absl::Status PrepareSquares(const KernelArgs& a) {
  constexpr auto kSearch =
      kDeterminism == Determinism::kBitExact ? GemmPlans::Search::kFirst : GemmPlans::Search::kTimed;
  return With<DwAccSquares, kDeterminism>(a, [&a](GemmPlans& g, const GemmShape& s, GemmPlans::Operands o) {
    o.beta = 0;
    RETURN_IF_ERROR(g.Prepare(s, o, kSearch));
    const Squared one = SquaredOf(a, s, o);
    return g.PrepareFused(one.shape, one.operands, kSearch, [&] { return ThenSquares(a, g, s, o); });
  });
}
template <Determinism kDeterminism>
absl::Status RunSquares(const KernelArgs& a) {
  return With<DwAccSquares, kDeterminism>(a, [&a](GemmPlans& g, const GemmShape& s, const GemmPlans::Operands& o) {
    const Squared one = SquaredOf(a, s, o);
    return o.beta == 0 && g.Fuses(one.shape) ? g.Run(one.shape, one.operands) : ThenSquares(a, g, s, o);
  });
}

int64_t Workspace(const Op&, std::span<const TensorRef>) { return kGemmWorkspaceBytes; }

template <Describe kDescribe, Determinism kDeterminism>
constexpr Kernel kKernel = {.run = Run<kDescribe, kDeterminism>,
                            .workspace = Workspace,
                            .cost = OpCost,
                            .prepare = Prepare<kDescribe, kDeterminism>};
template <Determinism kDeterminism>
constexpr Kernel kSquaresKernel = {
    .run = RunSquares<kDeterminism>, .workspace = Workspace, .cost = OpCost, .prepare = PrepareSquares<kDeterminism>};
template <Describe kDescribe>
Kernel Make(Determinism determinism) {
  return determinism == Determinism::kBitExact ? kKernel<kDescribe, Determinism::kBitExact>
                                               : kKernel<kDescribe, Determinism::kFast>;
}

}  // namespace

void AddCudaLinearKernels(KernelTable& table, Determinism determinism) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    table.Add("linear", t, Make<Forward>(determinism));
    table.Add("linear_packed", t, Make<Forward>(determinism));
    table.Add("linear_add", t, Make<ForwardAdd>(determinism));
    table.Add("linear_bias", t, Make<ForwardBias>(determinism));
    table.Add("linear_bias_add", t, Make<ForwardBias>(determinism));
    table.Add("linear_packed_bias", t, Make<PackedBias>(determinism));
    table.Add("linear_dx", t, Make<Dx>(determinism));
    table.Add("linear_packed_dx", t, Make<Dx>(determinism));
    table.Add("linear_dx_add", t, Make<DxAdd>(determinism));
    table.Add("linear_dw", t, Make<Dw>(determinism));
  }
  for (const DType t : {DType::kF32, DType::kBF16}) {  // of the results
    table.Add("linear_dw_acc", t, Make<DwAcc>(determinism));
    table.Add("linear_dw_acc_squares", t,
              determinism == Determinism::kBitExact ? kSquaresKernel<Determinism::kBitExact>
                                                    : kSquaresKernel<Determinism::kFast>);
  }
}

}  // namespace strata
