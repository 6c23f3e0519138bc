// y[r, n] = x[r, n] + b[n];  db[n] = sum over r of dy[r, n], in float32.
#include "core/kernels/bias_cuda.h"
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

// use(out) with the accumulator as what SumRows() takes.
template <typename Use>
absl::Status With(const BiasSums& s, const Use& use) {
  if (s.dtype == DType::kBF16) {
    use(SumsOut<1, CudaBF16>{{static_cast<CudaBF16*>(s.acc)}, s.adds});
  } else {
    use(SumsOut<1>{{static_cast<float*>(s.acc)}, s.adds});
  }
  return Launched("bias_grad");
}

absl::Status RunGrad(const KernelArgs& a) {
  const TensorRef& dy = a.in[0];
  return SumRowsInto({DType::kF32, a.out[0].data, dy.shape.back(), false}, dy.data, dy.dtype, RowsOf(dy),
                     a.workspace.data(), StreamOf(a));
}

absl::Status RunGradAcc(const KernelArgs& a) {  // accs..., dy
  const std::byte* at = a.out[0].as<const std::byte>();
  for (const TensorRef& acc : a.out) {
    if (acc.as<const std::byte>() != at) return absl::InternalError("accumulators of biases are not adjacent");
    at += acc.bytes();
  }
  const TensorRef& dy = a.in.back();
  const bool adds = FusedAttributesOf(a.op).always_add || !a.overwrite;
  return SumRowsInto({a.out[0].dtype, a.out[0].data, dy.shape.back(), adds}, dy.data, dy.dtype, RowsOf(dy),
                     a.workspace.data(), StreamOf(a));
}

int64_t Workspace(const Op&, std::span<const TensorRef> in) { return BiasSumsWorkspace(in.back().shape.back()); }

template <typename T>
void AddFor(KernelTable& table, DType dtype) {
  table.Add("bias_add", dtype, {.run = RunAdd<T>, .cost = StreamingCost});
  table.Add("bias_grad", dtype, {.run = RunGrad, .workspace = Workspace, .cost = StreamingCost});
}

}  // namespace

int64_t BiasSumsWorkspace(int64_t columns) { return SumRowsWorkspace(columns, 1); }

absl::Status SumRowsInto(const BiasSums& s, const void* dy, DType dtype, int64_t rows, void* workspace,
                         cudaStream_t stream) {
  return With(s, [&](const auto& out) {
    if (dtype == DType::kBF16) {
      SumRowsOf(stream, static_cast<const CudaBF16*>(dy), rows, s.columns, workspace, out);
    } else {
      SumRowsOf(stream, static_cast<const float*>(dy), rows, s.columns, workspace, out);
    }
  });
}

absl::Status AddPartialSums(const BiasSums& s, const float* partial, int64_t rows, cudaStream_t stream) {
  return With(s, [&](const auto& out) { LaunchAddBlocks<1>(stream, partial, rows, s.columns, out); });
}

void AddCudaBiasKernels(KernelTable& table) {
  AddFor<float>(table, DType::kF32);
  AddFor<CudaBF16>(table, DType::kBF16);
  for (const DType t : {DType::kF32, DType::kBF16}) {
    table.Add("bias_grad_acc", t, {.run = RunGradAcc, .workspace = Workspace, .cost = StreamingCost});
  }
}

}  // namespace strata
