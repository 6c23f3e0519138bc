// rms_norm, layer_norm and their gradients, fused (core/ops/fused.h) or one by one. Rows that fit in registers and are made
// of 16-byte vectors: norm_rows.cuh, and on Hopper norm_staged.cuh but for short ones. Others: a block a row, which is read again
// for each sum.
#include "core/kernels/cost.h"
#include "core/kernels/map.cuh"
#include "core/kernels/norm_rows.cuh"
#include "core/kernels/norm_staged.cuh"
#include "core/kernels/sm90_host.h"
#include "core/kernels/sum_rows.cuh"
#include "core/ops/layer_norm.h"
#include "core/ops/rms_norm.h"

namespace strata {
namespace {

constexpr int kAnyThreads = 256;

template <typename T, bool kCentered>
__global__ void __launch_bounds__(kAnyThreads) ForwardAny(NormForward<T> a) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x;
  const T* const x = a.x + row * a.columns;
  const float over_columns = 1.0f / static_cast<float>(a.columns);
  float sum = 0, mean = 0;
  if constexpr (kCentered) {
    for (int e = threadIdx.x; e < a.columns; e += kAnyThreads) sum += ToFloat(x[e]);
    mean = BlockSum(sum, shared) * over_columns;
    sum = 0;
  }
  for (int e = threadIdx.x; e < a.columns; e += kAnyThreads) sum += (ToFloat(x[e]) - mean) * (ToFloat(x[e]) - mean);
  const float rstd = 1.0f / sqrtf(BlockSum(sum, shared) * over_columns + a.eps);
  for (int e = threadIdx.x; e < a.columns; e += kAnyThreads) {
    const float bias = kCentered ? ToFloat(a.b[e]) : 0.0f;
    a.y[row * a.columns + e] = FromFloat<T>((ToFloat(x[e]) - mean) * rstd * ToFloat(a.w[e]) + bias);
  }
  if (threadIdx.x > 0) return;
  a.rstd[row] = rstd;
  if constexpr (kCentered) a.mean[row] = mean;
}

template <typename T, bool kCentered>
__global__ void __launch_bounds__(kAnyThreads) DxAny(NormBackward<T> a) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x, begin = row * a.columns;
  const float rstd = a.rstd[row], mean = kCentered ? a.mean[row] : 0.0f;
  const float over_columns = 1.0f / static_cast<float>(a.columns);
  const auto t = [&](int e) { return ToFloat(a.dy[begin + e]) * ToFloat(a.w[e]); };
  const auto xhat = [&](int e) { return (ToFloat(a.x[begin + e]) - mean) * rstd; };
  float sum_t = 0, sum_tx = 0;
  for (int e = threadIdx.x; e < a.columns; e += kAnyThreads) {
    sum_t += t(e);
    sum_tx += t(e) * xhat(e);
  }
  const float mean_t = kCentered ? BlockSum(sum_t, shared) * over_columns : 0.0f;
  const float mean_tx = BlockSum(sum_tx, shared) * over_columns;
  for (int e = threadIdx.x; e < a.columns; e += kAnyThreads) {
    const float dx = rstd * (t(e) - xhat(e) * mean_tx - mean_t);
    a.dx[begin + e] = FromFloat<T>(a.r != nullptr ? dx + ToFloat(a.r[begin + e]) : dx);
  }
}

template <typename T, bool kCentered>
struct DwOfRow {
  NormBackward<T> a;
  __device__ void operator()(int64_t row, int64_t column, float (&x)[kCentered ? 2 : 1][1]) const {
    const int64_t i = row * a.columns + column;
    const float dy = ToFloat(a.dy[i]);
    x[0][0] = dy * ((ToFloat(a.x[i]) - (kCentered ? a.mean[row] : 0.0f)) * a.rstd[row]);
    if constexpr (kCentered) x[1][0] = dy;
  }
};

// Calls launch<kThreads, kLanes, kVecs>() (norm_rows.cuh) for a row of so many vectors; false where it has too many.
template <typename Launch>
bool WithSpread(int64_t vecs, const Launch& launch) {
  if (vecs <= 16) return launch.template operator()<256, 16, 1>(), true;
  if (vecs <= 32) return launch.template operator()<256, 32, 1>(), true;
  if (vecs <= 128) return launch.template operator()<128, 128, 1>(), true;
  if (vecs <= 256) return launch.template operator()<256, 256, 1>(), true;
  if (vecs <= 512) return launch.template operator()<512, 512, 1>(), true;
  if (vecs <= 1024) return launch.template operator()<512, 512, 2>(), true;
  return false;
}

// Blocks that run through `rows`, so many at a time each: at most `blocks` of them, and equally often.
int64_t BlocksFor(int64_t rows, int64_t block_rows, int64_t blocks) {
  const int64_t pieces = Ceil(rows, block_rows);
  return pieces == 0 ? 0 : Ceil(pieces, Ceil(pieces, blocks));
}

template <typename T>
int64_t VecsOf(int64_t columns) {  // too many where a row is not made of whole vectors
  return columns % Vec<T>::kSize == 0 ? columns / Vec<T>::kSize : std::numeric_limits<int64_t>::max();
}

// What is written stays in the L2 cache, 50 MB, for the next kernel: of tensors that fit about.
constexpr int64_t kCachedBytes = int64_t{56} << 20;

// Calls launch<kTeamWarps>() (norm_staged.cuh) where rows of so many vectors go through shared memory; else false. Shorter rows
// are too small a copy; of float32 it was not measured.
template <typename T, typename Launch>
bool WithTeam(const CudaContext& gpu, int64_t vecs, const Launch& launch) {
  constexpr int64_t kOfWarp = 32 * kStagedVecs;
  if constexpr (std::is_same_v<T, CudaBF16>) {
    if (!sm90::KernelsRun(gpu.properties.major) || vecs <= 32) return false;
    if (vecs <= kOfWarp) return launch.template operator()<1>(), true;
    if (vecs <= 2 * kOfWarp) return launch.template operator()<2>(), true;
    if (vecs <= 3 * kOfWarp) return launch.template operator()<3>(), true;
    if (vecs <= 4 * kOfWarp) return launch.template operator()<4>(), true;
    if (vecs <= 8 * kOfWarp) return launch.template operator()<8>(), true;
  }
  return false;
}

// `kernel`(args, stages), whose teams' rings take rows of so many operands beside `weights` rows. Launched() tells of errors.
template <typename Team, typename Args>
void LaunchStaged(cudaStream_t stream, void (*kernel)(Args, int, Leaves), const Args& args, int64_t row_bytes,
                  int operands, int weights) {
  const int stages = StagesFor<Team>(operands * row_bytes, weights * row_bytes);
  const auto bytes = static_cast<int>((stages * Team::kCount * operands + weights) * row_bytes);
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) != cudaSuccess) return;
  const Leaves leaves = args.rows * row_bytes <= kCachedBytes ? Leaves::kFirst : Leaves::kAsOthers;
  const auto blocks = static_cast<unsigned>(std::min(args.rows, kMultiprocessors));
  kernel<<<blocks, Team::kBlockThreads, bytes, stream>>>(args, stages, leaves);
}

template <typename T, bool kCentered>
void LaunchForward(const CudaContext& gpu, cudaStream_t stream, const NormForward<T>& a) {
  if (a.rows == 0) return;
  const int64_t vecs = VecsOf<T>(Aligned16({a.x, a.w, a.b, a.y}) ? a.columns : 1);
  const auto staged = [&]<int kWarps>() {
    LaunchStaged<WarpTeam<kWarps, kForwardWarps>>(stream, NormForwardStaged<T, kCentered, kWarps>, a, vecs * 16, 1,
                                                  kCentered ? 2 : 1);
  };
  if (WithTeam<T>(gpu, vecs, staged)) return;
  const auto launch = [&]<int kThreads, int kLanes, int kVecs>() {
    using S = RowSpread < kThreads, kLanes, kVecs, kLanes<kThreads ? 4 : 1>;
    const int64_t blocks = BlocksFor(a.rows, S::kBlockRows, kForwardBlocks<S, kCentered> * kMultiprocessors);
    NormForwardRows<T, kCentered, S><<<static_cast<unsigned>(blocks), S::kThreads, 0, stream>>>(a);
  };
  if (WithSpread(vecs, launch)) return;
  ForwardAny<T, kCentered><<<static_cast<unsigned>(a.rows), kAnyThreads, 0, stream>>>(a);
}

// dx, and where `sums` is given dw, db of layer norm, and as a third the column sums of dx.
template <typename T, int kColumnSums, typename Sum>
void LaunchBackward(const CudaContext& gpu, cudaStream_t stream, const NormBackward<T>& a,
                    const SumsOut<kColumnSums, Sum>* sums) {
  constexpr bool kCentered = kColumnSums > 1;
  constexpr int kOfWeights = kCentered ? 2 : 1;
  const int64_t vecs = VecsOf<T>(Aligned16({a.dy, a.x, a.w, a.r, a.dx}) ? a.columns : 1);
  const auto staged = [&]<int kWarps>() {
    LaunchStaged<WarpTeam<kWarps, kBackwardWarps<kColumnSums>>>(stream, NormBackwardStaged<T, kColumnSums, kWarps>, a,
                                                                vecs * 16, a.r != nullptr ? 3 : 2, 1);
    if (sums == nullptr) return;
    LaunchAddBlocks(stream, a.partial, std::min(a.rows, kMultiprocessors), a.columns, *sums, Launch::kEarly);
  };
  if (a.dx != nullptr && a.rows > 0 && WithTeam<T>(gpu, vecs, staged)) return;
  SumsOut<kOfWeights, Sum> of_weights{.adds = sums != nullptr && sums->adds};
  for (int s = 0; sums != nullptr && s < kOfWeights; ++s) of_weights.at[s] = sums->at[s];
  const auto launch = [&]<int kThreads, int kLanes, int kVecs>() {
    using S = RowSpread < kThreads, kLanes, kVecs, kThreads<512 ? 2 : 1>;
    const int64_t blocks = BlocksFor(a.rows, S::kBlockRows, kBackwardBlocks<S, kCentered> * kMultiprocessors);
    if (blocks > 0) {
      NormBackwardRows<T, kCentered, S><<<static_cast<unsigned>(blocks), S::kThreads, 0, stream>>>(a);
    }
    if (sums != nullptr) LaunchAddBlocks(stream, a.partial, blocks, a.columns, of_weights);
  };
  if (!WithSpread(vecs, launch)) {
    if (sums != nullptr) {
      SumRows<kOfWeights, 1>(stream, DwOfRow<T, kCentered>{a}, a.rows, a.columns, a.partial, of_weights);
    }
    if (a.dx != nullptr && a.rows > 0) {
      DxAny<T, kCentered><<<static_cast<unsigned>(a.rows), kAnyThreads, 0, stream>>>(a);
    }
  }
  if constexpr (kColumnSums > 2) {
    SumRowsOf(stream, a.dx, a.rows, a.columns, a.partial, SumsOut<1, Sum>{{sums->at[2]}, sums->adds});
  }
}

template <typename T>
absl::Status RunRmsNorm(const KernelArgs& a) {  // x, w -> y, rstd
  const TensorRef& x = a.in[0];
  LaunchForward<T, false>(
      CudaContextOf(a), StreamOf(a),
      {x.as<const T>(), a.in[1].as<const T>(), nullptr, a.out[0].as<T>(), nullptr, a.out[1].as<float>(),
       static_cast<float>(EpsOf(a.op)), RowsOf(x), static_cast<int>(x.shape.back())});
  return Launched("rms_norm");
}

template <typename T>
absl::Status RunLayerNorm(const KernelArgs& a) {  // x, w, b -> y, mean, rstd
  const TensorRef& x = a.in[0];
  LaunchForward<T, true>(
      CudaContextOf(a), StreamOf(a),
      {x.as<const T>(), a.in[1].as<const T>(), a.in[2].as<const T>(), a.out[0].as<T>(), a.out[1].as<float>(),
       a.out[2].as<float>(), static_cast<float>(LayerNormEps(a.op)), RowsOf(x), static_cast<int>(x.shape.back())});
  return Launched("layer_norm");
}

enum class Wanted : uint8_t { kDx, kDw, kBoth, kBothAdded };  // kBothAdded: sums to accumulators

// dy, x, w (but for kDw), mean (of layer norm), rstd, accumulators, and for both r or none -> dx, dw, db (of layer norm), as wanted, and
// the column sums of dx where there is a third sum.
template <typename T, int kColumnSums, Wanted kWanted>
absl::Status RunBackward(const KernelArgs& a) {
  constexpr bool kDx = kWanted != Wanted::kDw, kDw = kWanted != Wanted::kDx, kCentered = kColumnSums > 1;
  constexpr bool kAdded = kWanted == Wanted::kBothAdded;
  constexpr size_t kMean = kDx ? 3 : 2, kRstd = kMean + (kCentered ? 1 : 0),
                   kR = kRstd + 1 + (kAdded ? kColumnSums : 0);
  const TensorRef& x = a.in[1];
  const NormBackward<T> n{a.in[0].as<const T>(),
                          x.as<const T>(),
                          kDx ? a.in[2].as<const T>() : nullptr,
                          a.in.size() > kR ? a.in[kR].as<const T>() : nullptr,
                          kCentered ? a.in[kMean].as<const float>() : nullptr,
                          a.in[kRstd].as<const float>(),
                          kDx ? a.out[0].as<T>() : nullptr,
                          kDw ? reinterpret_cast<float*>(a.workspace.data()) : nullptr,
                          RowsOf(x),
                          static_cast<int>(x.shape.back())};
  const auto launch = [&]<typename Sum>() {
    SumsOut<kColumnSums, Sum> sums{.adds = kAdded && !a.overwrite};
    for (int s = 0; kDw && s < kColumnSums; ++s) sums.at[s] = a.out[(kDx ? 1 : 0) + s].template as<Sum>();
    LaunchBackward<T, kColumnSums, Sum>(CudaContextOf(a), StreamOf(a), n, kDw ? &sums : nullptr);
  };
  if (kAdded && a.out[1].dtype == DType::kBF16) {
    if constexpr (kAdded) launch.template operator()<CudaBF16>();
  } else {
    launch.template operator()<float>();
  }
  return Launched("norm gradient");
}

template <int kColumnSums>
int64_t SumsWorkspace(const Op&, std::span<const TensorRef> in) {
  constexpr int64_t kBlocks = kMostBackwardBlocks * kMultiprocessors;
  return std::max(kBlocks, kMaxRowBlocks) * in[1].shape.back() * kColumnSums * int64_t{sizeof(float)};
}

struct RsqrtFn {
  float eps;
  __device__ void operator()(const float* x, float* y) const { y[0] = 1.0f / sqrtf(x[0] + eps); }
};
template <typename T>
absl::Status RunRsqrt(const KernelArgs& a) {
  return MapFlat<T, 1, T>(a, RsqrtFn{static_cast<float>(EpsOf(a.op))});
}

template <typename T>
void AddFor(KernelTable& table, DType dtype) {
  using enum Wanted;
  const auto add = [&](const char* op, absl::Status (*run)(const KernelArgs&), decltype(Kernel::workspace) workspace) {
    table.Add(op, dtype, {.run = run, .workspace = workspace, .cost = StreamingCost});
  };
  add("rms_norm", RunRmsNorm<T>, nullptr);
  add("rms_norm_dx", RunBackward<T, 1, kDx>, nullptr);
  add("rms_norm_dw", RunBackward<T, 1, kDw>, SumsWorkspace<1>);
  add("rms_norm_bwd", RunBackward<T, 1, kBoth>, SumsWorkspace<1>);
  add("rms_norm_bwd_acc", RunBackward<T, 1, kBothAdded>, SumsWorkspace<1>);
  add("rsqrt", RunRsqrt<T>, nullptr);
  add("layer_norm", RunLayerNorm<T>, nullptr);
  add("layer_norm_dx", RunBackward<T, 2, kDx>, nullptr);
  add("layer_norm_dw", RunBackward<T, 2, kDw>, SumsWorkspace<2>);
  add("layer_norm_bwd", RunBackward<T, 2, kBoth>, SumsWorkspace<2>);
  add("layer_norm_bwd_acc", RunBackward<T, 2, kBothAdded>, SumsWorkspace<2>);
  add("layer_norm_bwd_sum", RunBackward<T, 3, kBoth>, SumsWorkspace<3>);
  add("layer_norm_bwd_sum_acc", RunBackward<T, 3, kBothAdded>, SumsWorkspace<3>);
}

}  // namespace

void AddCudaNormKernels(KernelTable& table) {
  AddFor<float>(table, DType::kF32);
  AddFor<CudaBF16>(table, DType::kBF16);
}

}  // namespace strata
