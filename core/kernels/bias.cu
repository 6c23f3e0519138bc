// y[r, n] = x[r, n] + b[n];  db[n] = sum over r of dy[r, n], in float32.
#include "core/kernels/cost.h"
#include "core/kernels/map.cuh"
#include "core/kernels/sum_rows.cuh"

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

template <typename T>
absl::Status RunGrad(const KernelArgs& a) {
  const int64_t rows = RowsOf(a.in[0]), N = a.in[0].shape.back();
  const T* dy = a.in[0].as<const T>();
  const SumsOut<1> out{{a.out[0].as<float>()}};
  if (N % 8 == 0 && Aligned16({dy})) {
    SumRows<1, 8>(StreamOf(a), RowOf<T, 8>{dy, N}, rows, N, a.workspace.data(), out);
  } else {
    SumRows<1, 1>(StreamOf(a), RowOf<T, 1>{dy, N}, rows, N, a.workspace.data(), out);
  }
  return Launched("bias_grad");
}

int64_t Workspace(const Op&, std::span<const TensorRef> in) { return SumRowsWorkspace(in[0].shape.back(), 1); }

template <typename T>
void AddFor(KernelTable& table, DType dtype) {
  table.Add("bias_add", dtype, {.run = RunAdd<T>, .cost = StreamingCost});
  table.Add("bias_grad", dtype, {.run = RunGrad<T>, .workspace = Workspace, .cost = StreamingCost});
}

}  // namespace

void AddCudaBiasKernels(KernelTable& table) {
  AddFor<float>(table, DType::kF32);
  AddFor<CudaBF16>(table, DType::kBF16);
}

}  // namespace strata
