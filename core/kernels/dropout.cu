// The masks of core/kernels/dropout_cpu.cc, bit for bit: y = x / (1 - rate) where a 32-bit random word is at least
// rate 2^32, else 0. With k = Philox(seed, key, step)[0..1] as the key, feature f of a token has word f % 4 of the block with
// counter (f / 4, position, sample id, 0).
#include "core/base/philox.h"
#include "core/kernels/cost.h"
#include "core/kernels/map.cuh"
#include "core/ops/dropout.h"

namespace strata {
namespace {

constexpr int kThreads = 256;

template <typename T>
struct DropoutArgs {
  const T* x;
  T* y;
  const int32_t *samples, *positions;
  const StepScalars* now;
  uint64_t key;
  int64_t tokens, S, E, first;  // first: the feature of column 0
  uint32_t threshold;
  float scale;
};

// A thread has kWidth features of a token: 8, whole blocks of random words, or 1.
template <int kWidth, typename T>
__global__ void __launch_bounds__(kThreads) Drop(DropoutArgs<T> a) {
  __shared__ uint32_t seed[2];
  if (threadIdx.x == 0) {
    const PhiloxBlock words = Philox(a.now->seed, a.key, a.now->step);
    seed[0] = words[0];
    seed[1] = words[1];
  }
  __syncthreads();
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x, groups = a.E / kWidth;
  if (i >= a.tokens * groups) return;
  const int64_t t = Quotient(i, groups), column = (i - t * groups) * kWidth, feature = a.first + column;
  const int64_t b = Quotient(t, a.S);
  const auto position = static_cast<uint32_t>(a.positions[t - b * a.S]), sample = static_cast<uint32_t>(a.samples[b]);
  float x[kWidth];
  LoadFloats(a.x + t * a.E + column, x);
#pragma unroll
  for (int k = 0; k < kWidth; k += 4) {
    const PhiloxBlock words =
        Philox4x32({static_cast<uint32_t>(feature / 4 + k / 4), position, sample, 0}, {seed[0], seed[1]});
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float kept = words[w] >= a.threshold ? a.scale : 0.0f;
      if constexpr (kWidth == 1) {
        if (feature % 4 == w) x[0] = kept > 0 ? x[0] * kept : 0.0f;
      } else {
        x[k + w] = kept > 0 ? x[k + w] * kept : 0.0f;
      }
    }
  }
  StoreFloats(a.y + t * a.E + column, x);
}

template <typename T>
absl::Status Run(const KernelArgs& a) {
  const DropoutSpec& spec = DropoutSpecOf(a.op);
  const TensorRef& x = a.in[0];
  const DropoutArgs<T> args{x.as<const T>(),
                            a.out[0].as<T>(),
                            a.in[1].as<const int32_t>(),
                            a.in[2].as<const int32_t>(),
                            a.scalars,
                            spec.key.value_or(a.key),
                            RowsOf(x),
                            x.shape[1],
                            x.shape[2],
                            x.origin[2],
                            static_cast<uint32_t>(spec.rate * 0x1p32),
                            static_cast<float>(1 / (1 - spec.rate))};
  if (x.shape.elements() == 0) return absl::OkStatus();
  const auto blocks = [&](int64_t width) { return static_cast<unsigned>(Ceil(x.shape.elements() / width, kThreads)); };
  if (args.E % 8 == 0 && args.first % 4 == 0 && Aligned16({args.x, args.y})) {
    Drop<8><<<blocks(8), kThreads, 0, StreamOf(a)>>>(args);
  } else {
    Drop<1><<<blocks(1), kThreads, 0, StreamOf(a)>>>(args);
  }
  return Launched("dropout");
}

}  // namespace

void AddCudaDropoutKernels(KernelTable& table) {
  table.Add("dropout", DType::kF32, {.run = Run<float>, .cost = StreamingCost});
  table.Add("dropout", DType::kBF16, {.run = Run<CudaBF16>, .cost = StreamingCost});
}

}  // namespace strata
