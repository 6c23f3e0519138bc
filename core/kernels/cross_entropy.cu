// Cross-entropy in pieces (core/ops/cross_entropy.h has the maths): a block a row of logits. Fused: softmax_cross_entropy.cu.
#include "core/kernels/cost.h"
#include "core/kernels/cross_entropy.cuh"
#include "core/kernels/map.cuh"
#include "core/kernels/sum_in_order.cuh"
#include "core/ops/vocab_mask.h"

namespace strata {
namespace {

template <typename T>
using ReduceFn = void (*)(VocabRows<T>, const float*, float*);

template <typename T>
__global__ void __launch_bounds__(kRowThreads) Max(VocabRows<T> z, const float*, float* m) {
  __shared__ float shared[32];
  float top = -INFINITY;
  z.ForEach([&](int, float x) { top = fmaxf(top, x); });
  top = BlockMax(top, shared);
  if (threadIdx.x == 0) m[blockIdx.x] = top;
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads) SumExp(VocabRows<T> z, const float* m, float* s) {
  __shared__ float shared[32];
  const float top = m[blockIdx.x];
  float sum = 0;
  z.ForEach([&](int, float x) { sum += Exp<T>(x - top); });
  sum = BlockSum(sum, shared);
  if (threadIdx.x == 0) s[blockIdx.x] = sum;
}

template <typename T>
__global__ void Pick(VocabRows<T> z, int64_t rows, const int32_t* targets, float* p) {
  const int64_t row = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (row >= rows) return;
  const int64_t v = z.LocalTarget(targets[row]);
  p[row] = v < 0 ? 0.0f : ToFloat(z.z[row * z.columns + v]);
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads) SumExpDx(VocabRows<T> z, const float* m, const float* ds, T* dz) {
  const float top = m[blockIdx.x], scale = ds[blockIdx.x];
  z.Write(dz, [&](int, float x) { return Exp<T>(x - top) * scale; });
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads) PickDx(VocabRows<T> z, const int32_t* targets, const float* dp, T* dz) {
  const int64_t target = z.LocalTarget(targets[blockIdx.x]);
  const float d = dp[blockIdx.x];
  z.Fill(dz, [&](int v) { return v == target ? d : 0.0f; });
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    Grad(VocabRows<T> z, const float* m, const float* s, const int32_t* targets, const float* weights,
         const float* seed, T* dz) {
  const float top = m[blockIdx.x], scale = *seed * weights[blockIdx.x], over_s = scale / s[blockIdx.x];
  const int64_t target = z.LocalTarget(targets[blockIdx.x]);
  z.Write(dz, [&](int v, float x) { return Exp<T>(x - top) * over_s - (v == target ? scale : 0.0f); });
}

template <typename T, ReduceFn<T> kReduce>
absl::Status RunReduce(const KernelArgs& a) {  // z(, m) -> [B, S]
  const auto blocks = static_cast<unsigned>(RowsOf(a.in[0]));
  const float* m = a.in.size() > 1 ? a.in[1].as<const float>() : nullptr;
  if (blocks > 0) {
    kReduce<<<blocks, kRowThreads, 0, StreamOf(a)>>>(VocabRows<T>(a.in[0], nullptr), m, a.out[0].as<float>());
  }
  return Launched("vocab reduction");
}

template <typename T>
absl::Status RunPick(const KernelArgs& a) {
  const int64_t rows = RowsOf(a.in[0]);
  const auto blocks = static_cast<unsigned>(Ceil(rows, kRowThreads));
  if (blocks > 0) {
    Pick<T><<<blocks, kRowThreads, 0, StreamOf(a)>>>(VocabRows<T>(a.in[0], nullptr), rows, a.in[1].as<const int32_t>(),
                                                     a.out[0].as<float>());
  }
  return Launched("vocab_pick");
}

template <typename T>
absl::Status RunSumExpDx(const KernelArgs& a) {
  T* const dz = a.out[0].as<T>();
  const auto blocks = static_cast<unsigned>(RowsOf(a.in[0]));
  if (blocks > 0) {
    SumExpDx<T><<<blocks, kRowThreads, 0, StreamOf(a)>>>(VocabRows<T>(a.in[0], dz), a.in[1].as<const float>(),
                                                         a.in[2].as<const float>(), dz);
  }
  return Launched("vocab_sum_exp_dx");
}

template <typename T>
absl::Status RunPickDx(const KernelArgs& a) {
  T* const dz = a.out[0].as<T>();
  const auto blocks = static_cast<unsigned>(RowsOf(a.in[0]));
  if (blocks > 0) {
    PickDx<T><<<blocks, kRowThreads, 0, StreamOf(a)>>>(VocabRows<T>(a.in[0], dz), a.in[1].as<const int32_t>(),
                                                       a.in[2].as<const float>(), dz);
  }
  return Launched("vocab_pick_dx");
}

template <typename T>
absl::Status RunGrad(const KernelArgs& a) {  // z, m, s, targets, weights, seed
  T* const dz = a.out[0].as<T>();
  const auto blocks = static_cast<unsigned>(RowsOf(a.in[0]));
  if (blocks > 0) {
    Grad<T><<<blocks, kRowThreads, 0, StreamOf(a)>>>(VocabRows<T>(a.in[0], dz), a.in[1].as<const float>(),
                                                     a.in[2].as<const float>(), a.in[3].as<const int32_t>(),
                                                     a.in[4].as<const float>(), a.in[5].as<const float>(), dz);
  }
  return Launched("softmax_grad");
}

struct NllOfRow {
  const float *m, *s, *p, *weights;
  __device__ double operator()(int64_t i) const { return weights[i] * (m[i] + log(static_cast<double>(s[i])) - p[i]); }
};
absl::Status RunNll(const KernelArgs& a) {
  const auto in = [&](int i) { return a.in[i].as<const float>(); };
  SumInOrder<<<1, kSumThreads, 0, StreamOf(a)>>>(NllOfRow{in(0), in(1), in(2), in(3)}, a.in[0].shape.elements(),
                                                 a.out[0].as<float>());
  return Launched("nll");
}

struct NllDxFn {  // s, weights
  const float* seed;
  __device__ void operator()(const float* x, float* y) const {
    const float d = *seed * x[1];
    y[0] = d / x[0];
    y[1] = -d;
  }
};
absl::Status RunNllDx(const KernelArgs& a) { return MapFlat<float, 2, float, float>(a, NllDxFn{a.in[2].as<float>()}); }

// y = z, and -infinity (or 0) past the classes. Where y is z only the padding is written.
template <typename T>
__global__ void Mask(const T* z, T* y, int64_t total, int64_t columns, int64_t kept, float fill) {
  const int64_t width = z == y ? columns - kept : columns;  // of the part of a row that is written
  const int64_t i = blockIdx.x * int64_t{kRowThreads} + threadIdx.x;
  if (i >= total) return;
  const int64_t column = columns - width + i % width, at = i / width * columns + column;
  y[at] = column < kept ? z[at] : FromFloat<T>(fill);
}

template <typename T>
absl::Status RunMask(const KernelArgs& a) {
  const TensorRef& z = a.in[0];
  const auto& [classes, to_zero] = VocabMaskAttributesOf(a.op);
  const int64_t columns = z.shape[2], past = classes - z.origin[2];
  const int64_t kept = past < 0 ? 0 : past < columns ? past : columns;
  const T* in = z.as<const T>();
  T* const out = a.out[0].as<T>();
  const int64_t total = RowsOf(z) * (in == out ? columns - kept : columns);
  if (total == 0) return absl::OkStatus();
  const auto blocks = static_cast<unsigned>(Ceil(total, kRowThreads));
  Mask<T><<<blocks, kRowThreads, 0, StreamOf(a)>>>(in, out, total, columns, kept, to_zero ? 0.0f : -INFINITY);
  return Launched("vocab_mask");
}

template <typename T>
void AddFor(KernelTable& table, DType dtype) {
  const auto add = [&](const char* op, absl::Status (*run)(const KernelArgs&)) {
    table.Add(op, dtype, {.run = run, .cost = StreamingCost});
  };
  add("vocab_max", RunReduce<T, Max<T>>);
  add("vocab_sum_exp", RunReduce<T, SumExp<T>>);
  add("vocab_pick", RunPick<T>);
  add("vocab_sum_exp_dx", RunSumExpDx<T>);
  add("vocab_pick_dx", RunPickDx<T>);
  add("softmax_grad", RunGrad<T>);
  add("vocab_mask", RunMask<T>);
}

}  // namespace

void AddCudaCrossEntropyKernels(KernelTable& table) {
  AddFor<float>(table, DType::kF32);
  AddFor<CudaBF16>(table, DType::kBF16);
  table.Add("nll", DType::kF32, {.run = RunNll, .cost = StreamingCost});
  table.Add("nll_dx", DType::kF32, {.run = RunNllDx, .cost = StreamingCost});
}

}  // namespace strata
