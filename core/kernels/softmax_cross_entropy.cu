// softmax_nll and softmax_nll_grad: nll = sum over rows of weight (m + log s - z[target]) with m = max z, s = sum exp(z - m),
// and dz = seed weight (exp(z - m) / s - [v == target]), which may be written over z. A block a row; a row that fits in the
// block's registers is read once; so is, on Hopper, one that fits in the shared memory of a block or two (softmax_staged.cuh); a
// longer one is read twice, the second time from its end and so in part from the cache. A row of weight 0 has nll and dz 0,
// whatever lies in it. The rows' nll lie in the workspace and are summed in float64, in order.
#include <cfloat>

#include "core/base/status.h"
#include "core/kernels/cost.h"
#include "core/kernels/sm90_host.h"
#include "core/kernels/softmax_staged.cuh"
#include "core/kernels/sum_in_order.cuh"

namespace strata {
namespace {

constexpr int kHeldThreads = 512, kHeldVecs = 8, kStreamThreads = 1024;

// Max and sum of exponentials of vecs [kSize] in one reading: a thread's sum is scaled down whenever its max rises. Over all threads.
template <typename T>
__device__ __forceinline__ MaxSum ReadVecs(const T* row, int vecs, float* shared) {
  constexpr int kSize = Vec<T>::kSize;
  float max = -FLT_MAX, sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < vecs; i += blockDim.x) {
    const Vec<T> x = LoadVec(row + i * kSize);
    float top = max;
#pragma unroll
    for (int j = 0; j < kSize; ++j) top = fmaxf(top, x[j]);
    sum *= Exp<T>(max - top);
    max = top;
#pragma unroll
    for (int j = 0; j < kSize; ++j) sum += Exp<T>(x[j] - max);
  }
  const float top = BlockMax(max, shared);
  return {top, BlockSum(sum * Exp<T>(max - top), shared)};
}
template <typename T>
__device__ __forceinline__ MaxSum ReadRow(const VocabRows<T>& z, float* shared) {
  if (z.wide) return ReadVecs(z.z + blockIdx.x * z.columns, static_cast<int>(z.columns) / Vec<T>::kSize, shared);
  float max = -FLT_MAX, sum = 0;
  z.ForEach([&](int, float x) {
    const float top = fmaxf(max, x);
    sum = sum * Exp<T>(max - top) + Exp<T>(x - top);
    max = top;
  });
  const float top = BlockMax(max, shared);
  return {top, BlockSum(sum * Exp<T>(max - top), shared)};
}

// The weight of the block's row; where it is 0, all of the row's results are written.
template <typename T>
__device__ __forceinline__ float WeightOf(const SoftmaxNll<T>& a) {
  const float weight = a.weights[blockIdx.x];
  if (weight != 0) return weight;
  if (a.dz != nullptr) a.z.Fill(a.dz, [](int) { return 0.0f; });
  if (threadIdx.x == 0) a.nll[blockIdx.x] = 0;
  return 0;
}

// Of thread 0, before anything is written over the row.
template <typename T>
__device__ __forceinline__ float Picked(const SoftmaxNll<T>& a, int64_t target) {
  return target < 0 ? 0.0f : ToFloat(a.z.z[blockIdx.x * a.z.columns + target]);
}

__device__ __forceinline__ double NllOf(float weight, const MaxSum& r, float picked) {
  return weight * (r.max + log(static_cast<double>(r.sum)) - picked);
}

template <typename T>
__global__ void __launch_bounds__(kStreamThreads) StreamRow(SoftmaxNll<T> a) {
  __shared__ float shared[32];
  const float weight = WeightOf(a);
  if (weight == 0) return;
  const int64_t target = a.z.LocalTarget(a.targets[blockIdx.x]);
  float picked = 0;
  if (threadIdx.x == 0) picked = Picked(a, target);
  const MaxSum r = ReadRow(a.z, shared);
  if (threadIdx.x == 0) a.nll[blockIdx.x] = NllOf(weight, r, picked);
  if (a.dz == nullptr) return;
  const float scale = *a.seed * weight, over_s = scale / r.sum;
  a.z.Write(a.dz, [&](int v, float x) { return Exp<T>(x - r.max) * over_s - (v == target ? scale : 0.0f); });
}

// Makes the compiler take what it computed of x again, rather than keep it: there are no registers for it.
template <typename T>
__device__ __forceinline__ void Forget(Vec<T> (&x)[kHeldVecs]) {
#pragma unroll
  for (Vec<T>& v : x) {
    uint4 bits;
    memcpy(&bits, &v, sizeof bits);
    asm volatile("" : "+r"(bits.x), "+r"(bits.y), "+r"(bits.z), "+r"(bits.w));
    memcpy(&v, &bits, sizeof bits);
  }
}

template <typename T>
__global__ void __launch_bounds__(kHeldThreads, 2) HeldRow(SoftmaxNll<T> a) {
  constexpr int kSize = Vec<T>::kSize;
  __shared__ float shared[32];
  const float weight = WeightOf(a);
  if (weight == 0) return;
  const int target = static_cast<int>(a.z.LocalTarget(a.targets[blockIdx.x]));
  const int vecs = static_cast<int>(a.z.columns) / kSize;
  const T* const row = a.z.z + blockIdx.x * a.z.columns;
  Vec<T> x[kHeldVecs];
#pragma unroll
  for (int i = 0; i < kHeldVecs; ++i) {
    const int v = threadIdx.x + i * kHeldThreads;
    if (v < vecs) x[i] = LoadVec(row + v * kSize);
  }
  float picked = 0;
  if (threadIdx.x == 0) picked = Picked(a, target);
  MaxSum r{-FLT_MAX, 0};
#pragma unroll
  for (int i = 0; i < kHeldVecs; ++i) {
    if (threadIdx.x + i * kHeldThreads >= vecs) continue;
#pragma unroll
    for (int j = 0; j < kSize; ++j) r.max = fmaxf(r.max, x[i][j]);
  }
  r.max = BlockMax(r.max, shared);
  Forget(x);
#pragma unroll
  for (int i = 0; i < kHeldVecs; ++i) {
    if (threadIdx.x + i * kHeldThreads >= vecs) continue;
#pragma unroll
    for (int j = 0; j < kSize; ++j) r.sum += Exp<T>(x[i][j] - r.max);
  }
  r.sum = BlockSum(r.sum, shared);
  const float scale = *a.seed * weight, over_s = scale / r.sum;
  Forget(x);
#pragma unroll
  for (int i = 0; i < kHeldVecs; ++i) {
    const int v = threadIdx.x + i * kHeldThreads;
    if (v >= vecs) continue;
    Vec<T> dz;
#pragma unroll
    for (int j = 0; j < kSize; ++j) {
      const float p = Exp<T>(x[i][j] - r.max) * over_s;
      dz.Set(j, v * kSize + j == target ? p - scale : p);
    }
    StoreVec(a.dz + blockIdx.x * a.z.columns + v * kSize, dz);
  }
  if (threadIdx.x == 0) a.nll[blockIdx.x] = NllOf(weight, r, picked);
}

// Whether a row of so many vectors goes through softmax_staged.cuh: of float32 it was not measured.
template <typename T>
bool Stages(int64_t vecs, int major) {
  return std::is_same_v<T, CudaBF16> && vecs <= RowChunks<2>::kMostVecs && sm90::KernelsRun(major);
}

template <typename T>
absl::Status Run(const KernelArgs& a, T* dz, const float* seed, float* loss) {  // z, targets, weights
  const TensorRef& z = a.in[0];
  const int64_t rows = RowsOf(z);
  double* const nll = reinterpret_cast<double*>(a.workspace.data());
  const SoftmaxNll<T> args{VocabRows<T>(z, dz), a.in[1].as<const int32_t>(), a.in[2].as<const float>(), seed, dz, nll};
  const cudaStream_t stream = StreamOf(a);
  const auto blocks = static_cast<unsigned>(rows);
  if (rows > 0) {
    const cudaDeviceProp& gpu = CudaContextOf(a).properties;
    const int64_t vecs = dz != nullptr && args.z.wide ? args.z.columns / Vec<T>::kSize : 0;  // 0: as they are
    if (vecs > 0 && vecs <= int64_t{kHeldThreads} * kHeldVecs) {
      HeldRow<T><<<blocks, kHeldThreads, 0, stream>>>(args);
    } else if (vecs > 0 && Stages<T>(vecs, gpu.major)) {
      if constexpr (std::is_same_v<T, CudaBF16>) {
        const auto launch = vecs <= RowChunks<1>::kMostVecs ? LaunchStagedRows<T, 1> : LaunchStagedRows<T, 2>;
        RETURN_IF_ERROR(
            CudaStatus(launch(args, static_cast<int>(rows), gpu.multiProcessorCount, stream), "softmax_nll_grad"));
      }
    } else {
      StreamRow<T><<<blocks, kStreamThreads, 0, stream>>>(args);
    }
  }
  SumInOrder<<<1, kSumThreads, 0, stream>>>(Stored{nll}, rows, loss);
  return Launched("softmax_nll");
}

template <typename T>
absl::Status RunNll(const KernelArgs& a) {
  return Run<T>(a, nullptr, nullptr, a.out[0].as<float>());
}
template <typename T>
absl::Status RunGrad(const KernelArgs& a) {
  return Run<T>(a, a.out[0].as<T>(), a.in[3].as<const float>(), a.out[1].as<float>());
}

int64_t Workspace(const Op&, std::span<const TensorRef> in) {
  return RowsOf(in[0]) * static_cast<int64_t>(sizeof(double));
}

template <typename T>
void AddFor(KernelTable& table, DType dtype) {
  table.Add("softmax_nll", dtype, {.run = RunNll<T>, .workspace = Workspace, .cost = StreamingCost});
  table.Add("softmax_nll_grad", dtype, {.run = RunGrad<T>, .workspace = Workspace, .cost = StreamingCost});
}

}  // namespace

void AddCudaSoftmaxNllKernels(KernelTable& table) {
  AddFor<float>(table, DType::kF32);
  AddFor<CudaBF16>(table, DType::kBF16);
}

}  // namespace strata
