// y[r, n] = x[r, n] + b[n];  db[n] = sum over r of dy[r, n], in float32.
#include "core/kernels/cost.h"
#include "core/kernels/map.cuh"
#include "core/kernels/sum_rows.cuh"
#include "core/ops/fused.h"

namespace strata {
namespace {

struct AddFn {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] + x[1]; }
};

template <typename T>
absl::Status RunAdd(const KernelArgs& a) {
  const int64_t N = a.in[0].shape.back();
  Map<1>(StreamOf(a), AddFn{}, RowsOf(a.in[0]), N, PitchedOut<T, 1>{{{a.out[0].as<T>(), N}}},
         Pitched<const T>{a.in[0].as<const T>(), N}, Pitched<const T>{a.in[1].as<const T>(), 0});
  return Launched("bias_add");
}

template <typename T, int kWidth>
struct RowOf {
  const T* dy;
  int64_t columns;
  __device__ void operator()(int64_t row, int64_t column, float (&x)[1][kWidth]) const {
    LoadFloats(dy + row * columns + column, x[0]);
  }
};

template <typename T, typename Out>
absl::Status Sum(const KernelArgs& a, const TensorRef& dy, const SumsOut<1, Out>& out) {
  const int64_t rows = RowsOf(dy), N = dy.shape.back();
  const T* x = dy.as<const T>();
  if (N % 8 == 0 && Aligned16({x})) {
    SumRows<1, 8>(StreamOf(a), RowOf<T, 8>{x, N}, rows, N, a.workspace.data(), out);
  } else {
    SumRows<1, 1>(StreamOf(a), RowOf<T, 1>{x, N}, rows, N, a.workspace.data(), out);
  }
  return Launched("bias_grad");
}

template <typename T>
absl::Status RunGrad(const KernelArgs& a) {
  return Sum<T>(a, a.in[0], SumsOut<1>{{a.out[0].as<float>()}});
}

template <typename Acc>
absl::Status RunGradAcc(const KernelArgs& a) {  // accs..., dy
  const Acc* at = a.out[0].as<const Acc>();
  for (const TensorRef& acc : a.out) {
    if (acc.as<const Acc>() != at) return absl::InternalError("accumulators of biases are not adjacent");
    at += acc.shape.elements();
  }
  const TensorRef& dy = a.in.back();
  const SumsOut<1, Acc> out{{a.out[0].as<Acc>()}, FusedAttributesOf(a.op).always_add || !a.overwrite};
  return dy.dtype == DType::kBF16 ? Sum<CudaBF16>(a, dy, out) : Sum<float>(a, dy, out);
}

int64_t Workspace(const Op&, std::span<const TensorRef> in) { return SumRowsWorkspace(in.back().shape.back(), 1); }

template <typename T>
void AddFor(KernelTable& table, DType dtype) {
  table.Add("bias_add", dtype, {.run = RunAdd<T>, .cost = StreamingCost});
  table.Add("bias_grad", dtype, {.run = RunGrad<T>, .workspace = Workspace, .cost = StreamingCost});
}

}  // namespace

void AddCudaBiasKernels(KernelTable& table) {
  AddFor<float>(table, DType::kF32);
  AddFor<CudaBF16>(table, DType::kBF16);
  table.Add("bias_grad_acc", DType::kF32, {.run = RunGradAcc<float>, .workspace = Workspace, .cost = StreamingCost});
  table.Add("bias_grad_acc", DType::kBF16,
            {.run = RunGradAcc<CudaBF16>, .workspace = Workspace, .cost = StreamingCost});
}

}  // namespace strata
