// Products with element-wise work on their results (core/ops/fused.h), with M rows: gu[M, 2 F] = x (gate | up)^T and
// h = silu(gate) up; dh = dy W_down and the gradient of gu; qkv[M, T D] = x (q | k | v)^T with the heads of q and k turned;
// pre[M, F] = x W^T + b and h = gelu(pre); dh = dy W and the gradient of pre, and its sums over rows. A product, then a kernel over
// its result, which is rounded to its dtype in between; or one kernel.

#include "core/kernels/bias_cuda.h"
#include "core/kernels/cuda_kernels.h"
#include "core/kernels/gelu_cuda.h"
#include "core/kernels/linear_cuda.h"
#include "core/kernels/product_cost.h"
#include "core/kernels/rope_cuda.h"
#include "core/kernels/swiglu_cuda.h"
#include "core/ops/fused.h"

namespace strata {
namespace {

int64_t Rows(const TensorRef& x) { return x.shape.back() > 0 ? x.shape.elements() / x.shape.back() : 0; }

struct Product {
  GemmShape shape;
  const void *x, *w;
  void* y;
  std::span<std::byte> workspace;
  const void* bias = nullptr;
};
using Describe = absl::StatusOr<Product> (*)(const KernelArgs&);

absl::StatusOr<Product> GateUp(const KernelArgs& a) {  // x, gate, up -> gu, h
  ASSIGN_OR_RETURN(const int64_t n, RowsOfPacked(a.in.subspan(1)));
  const TensorRef &x = a.in[0], &w = a.in[1], &gu = a.out[0];
  return Product{{Rows(x), n, x.shape.back(), false, true, x.dtype, gu.dtype}, x.data, w.data, gu.data, a.workspace};
}

absl::StatusOr<Product> DxInDgu(
    const KernelArgs& a) {  // dy, down, gu -> dgu: dh where the gradient of up takes its place
  const TensorRef &dy = a.in[0], &down = a.in[1], &dgu = a.out[0];
  const int64_t F = down.shape[1];
  Product p{{Rows(dy), F, down.shape[0], false, false, dy.dtype, dgu.dtype}, dy.data, down.data, nullptr, a.workspace};
  p.shape.ldd = 2 * F;
  p.y = dgu.as<std::byte>() + F * SizeOf(dgu.dtype);
  return p;
}

absl::StatusOr<Product> Affine(const KernelArgs& a) {  // x, w, bias -> pre, h
  const TensorRef &x = a.in[0], &w = a.in[1], &pre = a.out[0];
  Product p{{Rows(x), w.shape[0], x.shape.back(), false, true, x.dtype, pre.dtype},
            x.data,
            w.data,
            pre.data,
            a.workspace,
            a.in[2].data};
  p.shape.bias = true;
  return p;
}

absl::StatusOr<Product> DxInDpre(
    const KernelArgs& a) {  // dy, w, pre -> dpre: dh, where the gradient of pre takes its place
  const TensorRef &dy = a.in[0], &w = a.in[1], &dpre = a.out[0];
  return Product{
      {Rows(dy), w.shape[1], w.shape[0], false, false, dy.dtype, dpre.dtype}, dy.data, w.data, dpre.data, a.workspace};
}

int64_t TableBytes(const Op& op, std::span<const TensorRef> in) {
  return RopeTableBytes(in[1].shape.elements(), FusedAttributesOf(op).head_dim);
}

// The table of angles lies before what the product needs.
absl::StatusOr<Product> Qkv(const KernelArgs& a) {  // x, positions, q, k, v -> qkv
  ASSIGN_OR_RETURN(const int64_t n, RowsOfPacked(a.in.subspan(2)));
  const TensorRef &x = a.in[0], &w = a.in[2], &qkv = a.out[0];
  return Product{{Rows(x), n, x.shape.back(), false, true, x.dtype, qkv.dtype},
                 x.data,
                 w.data,
                 qkv.data,
                 a.workspace.subspan(TableBytes(a.op, a.in))};
}

GemmPlans::Operands OperandsOf(const Product& p, const KernelArgs& a) {
  return {p.x, p.w, nullptr, p.bias, p.y, 0, p.workspace, StreamOf(a)};
}

template <Describe kDescribe>
absl::StatusOr<Product> Described(const KernelArgs& a) {
  ASSIGN_OR_RETURN(Product p, kDescribe(a));
  p.shape.align = AlignmentOf({p.x, p.w, p.y, p.bias});
  return p;
}

template <Describe kDescribe, GemmPlans::Search kSearch>
absl::Status Prepare(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Product p, Described<kDescribe>(a));
  ASSIGN_OR_RETURN(GemmPlans* const gemms, GemmPlansOf(a));
  return gemms->Prepare(p.shape, OperandsOf(p, a), kSearch);
}

template <Describe kDescribe>
absl::StatusOr<Product> Multiply(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Product p, Described<kDescribe>(a));
  ASSIGN_OR_RETURN(GemmPlans* const gemms, GemmPlansOf(a));
  RETURN_IF_ERROR(gemms->Run(p.shape, OperandsOf(p, a)));
  return p;
}

absl::Status Swiglu(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Product p, Multiply<GateUp>(a));
  return SwigluForward({p.shape.out, p.shape.m, p.shape.n / 2, p.y, a.out[1].data}, StreamOf(a));
}

absl::Status DxSwiglu(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Product p, Multiply<DxInDgu>(a));
  return SwigluBackward({p.shape.out, p.shape.m, p.shape.n, a.in[2].data, p.y, p.shape.ldd, a.out[0].data},
                        StreamOf(a));
}

absl::Status Gelu(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Product p, Multiply<Affine>(a));
  return RunGelu({p.shape.out, FusedAttributesOf(a.op).gelu, p.shape.m * p.shape.n, p.y, nullptr, a.out[1].data},
                 StreamOf(a));
}

absl::Status DxGelu(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Product p, Multiply<DxInDpre>(a));
  return RunGelu({p.shape.out, FusedAttributesOf(a.op).gelu, p.shape.m * p.shape.n, a.in[2].data, p.y, p.y},
                 StreamOf(a));
}

RopeTableCall AnglesOf(const KernelArgs& a) {
  const FusedAttributes& f = FusedAttributesOf(a.op);
  return {f.rope, a.in[1].as<const int32_t>(), a.in[1].shape.elements(), f.head_dim / 2,
          reinterpret_cast<float2*>(a.workspace.data())};
}

absl::Status Rope(const KernelArgs& a) {  // the angles are there
  ASSIGN_OR_RETURN(const Product p, Multiply<Qkv>(a));
  const int64_t D = FusedAttributesOf(a.op).head_dim, turned = (a.in[2].shape[0] + a.in[3].shape[0]) / D;
  return TurnHeads(AnglesOf(a), {p.shape.out, p.shape.m, p.shape.n / D, turned, p.y, p.y}, StreamOf(a));
}

// The same in one kernel, where there is one and it is faster.
using Fused = std::pair<GemmShape, GemmPlans::Operands>;
using DescribeFused = absl::StatusOr<Fused> (*)(const KernelArgs&);

template <Describe kDescribe, GemmFusion kFusion>
absl::StatusOr<Fused> FusedForward(const KernelArgs& a) {  // also writes h
  ASSIGN_OR_RETURN(const Product p, Described<kDescribe>(a));
  Fused f{p.shape, OperandsOf(p, a)};
  f.first.fusion = kFusion;
  f.first.align = std::min(f.first.align, AlignmentOf({a.out[1].data}));
  f.second.h = a.out[1].data;
  return f;
}

absl::StatusOr<Fused> FusedDxSwiglu(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Product p, Described<DxInDgu>(a));
  Fused f{p.shape, OperandsOf(p, a)};
  f.first.fusion = GemmFusion::kSwigluDx;
  f.first.align = AlignmentOf({p.x, p.w, a.in[2].data, a.out[0].data});
  f.first.ldd = 0;
  f.second.d = a.out[0].data;
  f.second.gate_up = a.in[2].data;
  return f;
}

absl::StatusOr<Fused> FusedDxGelu(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Product p, Described<DxInDpre>(a));
  Fused f{p.shape, OperandsOf(p, a)};
  f.first.fusion = GemmFusion::kGeluDx;
  f.first.align = std::min(f.first.align, AlignmentOf({a.in[2].data}));
  f.second.pre = a.in[2].data;
  return f;
}

absl::StatusOr<Fused> FusedRope(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Product p, Described<Qkv>(a));
  Fused f{p.shape, OperandsOf(p, a)};
  f.first.fusion = GemmFusion::kRope;
  f.first.head_dim = static_cast<int32_t>(FusedAttributesOf(a.op).head_dim);
  f.second.angles = a.workspace.data();
  f.second.angle_rows = a.in[1].shape.elements();
  f.second.turned = a.in[2].shape[0] + a.in[3].shape[0];
  return f;
}

// Whether a kernel may do it all: cuBLASLt has the tanh form of gelu, for rows of 16-byte units; ours takes tiled tables of rotations.
bool MayFuse(const KernelArgs& a, const GemmShape& s) {
  if (s.fusion == GemmFusion::kRope) return IsTiled(a.in[1].shape.elements(), s.head_dim / 2);
  if (s.fusion == GemmFusion::kSwiglu || s.fusion == GemmFusion::kSwigluDx) return true;
  return FusedAttributesOf(a.op).gelu == GeluKind::kTanh && s.out == DType::kBF16 && s.n % 8 == 0 && s.align >= 16;
}

using Run = absl::Status (*)(const KernelArgs&);

template <Describe kDescribe, DescribeFused kFused, Run kApart, GemmPlans::Search kSearch>
absl::Status PrepareFused(const KernelArgs& a) {
  RETURN_IF_ERROR((Prepare<kDescribe, kSearch>(a)));
  ASSIGN_OR_RETURN(const Fused f, kFused(a));
  ASSIGN_OR_RETURN(GemmPlans* const gemms, GemmPlansOf(a));
  if (!MayFuse(a, f.first)) return absl::OkStatus();
  return gemms->PrepareFused(f.first, f.second, kSearch, [&a] { return kApart(a); });
}
template <DescribeFused kFused, Run kApart>
absl::Status RunFused(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Fused f, kFused(a));
  ASSIGN_OR_RETURN(GemmPlans* const gemms, GemmPlansOf(a));
  return MayFuse(a, f.first) && gemms->Fuses(f.first) ? gemms->Run(f.first, f.second) : kApart(a);
}

// linear_dx_gelu_acc: acc, dy, w, pre -> acc, dpre. Partial sums lie before what the product needs.
int64_t SumsBytes(const Op&, std::span<const TensorRef> in) {
  const int64_t columns = in[2].shape[1];
  return std::max(BiasSumsWorkspace(columns), kGemmSumRows * columns * static_cast<int64_t>(sizeof(float)) + 255) /
         256 * 256;
}
KernelArgs DxGeluOf(const KernelArgs& a) {
  KernelArgs product = a;
  product.in = a.in.subspan(1);
  product.out = a.out.subspan(1);
  product.workspace = a.workspace.subspan(SumsBytes(a.op, a.in));
  return product;
}
BiasSums SumsOf(const KernelArgs& a) {
  const TensorRef& acc = a.out[0];
  return {acc.dtype, acc.data, acc.shape.elements(), FusedAttributesOf(a.op).always_add || !a.overwrite};
}

absl::StatusOr<Fused> FusedDxGeluAcc(const KernelArgs& a) {
  ASSIGN_OR_RETURN(Fused f, FusedDxGelu(DxGeluOf(a)));
  f.first.fusion = GemmFusion::kGeluDxSums;
  f.second.sums = reinterpret_cast<float*>(a.workspace.data());
  return f;
}

absl::Status DxGeluThenSums(const KernelArgs& a) {
  RETURN_IF_ERROR((RunFused<FusedDxGelu, DxGelu>(DxGeluOf(a))));
  const TensorRef& dpre = a.out[1];
  return SumRowsInto(SumsOf(a), dpre.data, dpre.dtype, Rows(dpre), a.workspace.data(), StreamOf(a));
}

absl::Status RunDxGeluAcc(const KernelArgs& a) {
  ASSIGN_OR_RETURN(const Fused f, FusedDxGeluAcc(a));
  ASSIGN_OR_RETURN(GemmPlans* const gemms, GemmPlansOf(a));
  if (!MayFuse(a, f.first) || !gemms->Fuses(f.first)) return DxGeluThenSums(a);
  RETURN_IF_ERROR(gemms->Run(f.first, f.second));
  return AddPartialSums(SumsOf(a), f.second.sums, kGemmSumRows, StreamOf(a));
}

template <GemmPlans::Search kSearch>
absl::Status PrepareDxGeluAcc(const KernelArgs& a) {
  RETURN_IF_ERROR((PrepareFused<DxInDpre, FusedDxGelu, DxGelu, kSearch>(DxGeluOf(a))));
  ASSIGN_OR_RETURN(const Fused f, FusedDxGeluAcc(a));
  ASSIGN_OR_RETURN(GemmPlans* const gemms, GemmPlansOf(a));
  if (!MayFuse(a, f.first)) return absl::OkStatus();
  return gemms->PrepareFused(f.first, f.second, kSearch, [&a] { return DxGeluThenSums(a); });
}

absl::Status RunRope(const KernelArgs& a) {
  if (a.out[0].shape.elements() == 0) return absl::OkStatus();
  RETURN_IF_ERROR(MakeRopeTable(AnglesOf(a), StreamOf(a)));
  return RunFused<FusedRope, Rope>(a);
}

template <GemmPlans::Search kSearch>
absl::Status PrepareRope(const KernelArgs& a) {
  if (a.out[0].shape.elements() == 0) return absl::OkStatus();
  RETURN_IF_ERROR(MakeRopeTable(AnglesOf(a), StreamOf(a)));
  return PrepareFused<Qkv, FusedRope, Rope, kSearch>(a);
}

int64_t RopeWorkspace(const Op& op, std::span<const TensorRef> in) { return TableBytes(op, in) + kGemmWorkspaceBytes; }
int64_t SumsWorkspace(const Op& op, std::span<const TensorRef> in) { return SumsBytes(op, in) + kGemmWorkspaceBytes; }
int64_t Workspace(const Op&, std::span<const TensorRef>) { return kGemmWorkspaceBytes; }

template <Describe kDescribe, DescribeFused kFused, Run kApart>
Kernel Make(Determinism determinism) {
  return {.run = RunFused<kFused, kApart>,
          .workspace = Workspace,
          .cost = OpCost,
          .prepare = determinism == Determinism::kBitExact
                         ? PrepareFused<kDescribe, kFused, kApart, GemmPlans::Search::kFirst>
                         : PrepareFused<kDescribe, kFused, kApart, GemmPlans::Search::kTimed>};
}

Kernel MakeRope(Determinism determinism) {
  return {.run = RunRope,
          .workspace = RopeWorkspace,
          .cost = OpCost,
          .prepare = determinism == Determinism::kBitExact ? PrepareRope<GemmPlans::Search::kFirst>
                                                           : PrepareRope<GemmPlans::Search::kTimed>};
}

}  // namespace

void AddCudaLinearFusedKernels(KernelTable& table, Determinism determinism) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    table.Add("linear_swiglu", t, Make<GateUp, FusedForward<GateUp, GemmFusion::kSwiglu>, Swiglu>(determinism));
    table.Add("linear_dx_swiglu", t, Make<DxInDgu, FusedDxSwiglu, DxSwiglu>(determinism));
    table.Add("linear_bias_gelu", t, Make<Affine, FusedForward<Affine, GemmFusion::kGelu>, Gelu>(determinism));
    table.Add("linear_dx_gelu", t, Make<DxInDpre, FusedDxGelu, DxGelu>(determinism));
    table.Add("linear_dx_gelu_acc", t,
              {.run = RunDxGeluAcc,
               .workspace = SumsWorkspace,
               .cost = OpCost,
               .prepare = determinism == Determinism::kBitExact ? PrepareDxGeluAcc<GemmPlans::Search::kFirst>
                                                                : PrepareDxGeluAcc<GemmPlans::Search::kTimed>});
    table.Add("linear_rope", t, MakeRope(determinism));
  }
}

}  // namespace strata
