// Rotary position embedding (core/ops/rope.h has the maths). A first kernel makes cos and sin [P, D/2] in the workspace, of
// each of the P positions; positions are [S], or [B, S] where rows of the batch differ: token t has position t mod P.
#include <algorithm>

#include "core/kernels/cost.h"
#include "core/kernels/cuda_util.cuh"
#include "core/ops/fused.h"
#include "core/ops/rope.h"

namespace strata {
namespace {

constexpr int kThreads = 128, kWidth = 8;

__global__ void Angles(const int32_t* positions, int64_t count, int half, RopeAttributes rope, float* cosine,
                       float* sine) {
  for (int i = threadIdx.x; i < half; i += blockDim.x) {
    const double frequency = ScaledFrequency(rope.scaling, pow(rope.theta, -static_cast<double>(i) / half));
    const double sign = rope.direction == RopeDirection::kForward ? 1 : -1;
    for (int64_t p = blockIdx.x; p < count; p += gridDim.x) {
      double s, c;
      sincos(positions[p] * frequency, &s, &c);
      cosine[p * half + i] = static_cast<float>(c);
      sine[p * half + i] = static_cast<float>(sign * s);
    }
  }
}

// A block is a token of `heads` heads: the first `turned` of them are turned, the others copied, or left alone in place.
template <int kPairs, typename T>
__global__ void __launch_bounds__(kThreads)
    Turn(const T* x, T* y, const float* cosine, const float* sine, int64_t positions, int heads, int turned, int half) {
  const int64_t token = blockIdx.x, angle = token % positions * half;
  x += token * heads * 2 * half;
  y += token * heads * 2 * half;
  for (int h = threadIdx.y; h < turned; h += blockDim.y) {
    for (int i = threadIdx.x * kPairs; i < half; i += blockDim.x * kPairs) {
      const int at = h * 2 * half + i;
      float u[kPairs], v[kPairs], c[kPairs], s[kPairs], turned_u[kPairs], turned_v[kPairs];
      LoadFloats(x + at, u);
      LoadFloats(x + at + half, v);
      LoadFloats(cosine + angle + i, c);
      LoadFloats(sine + angle + i, s);
#pragma unroll
      for (int j = 0; j < kPairs; ++j) {
        turned_u[j] = u[j] * c[j] - v[j] * s[j];
        turned_v[j] = v[j] * c[j] + u[j] * s[j];
      }
      StoreFloats(y + at, turned_u);
      StoreFloats(y + at + half, turned_v);
    }
  }
  if (x == y) return;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  for (int i = turned * 2 * half + thread * kPairs; i < heads * 2 * half; i += threads * kPairs) {
    float copied[kPairs];
    LoadFloats(x + i, copied);
    StoreFloats(y + i, copied);
  }
}

template <typename T>
absl::Status Launch(const KernelArgs& a, const RopeAttributes& rope, int64_t turned) {
  const TensorRef &x = a.in[0], &positions = a.in[1];
  const int64_t tokens = x.shape[0] * x.shape[1], heads = x.shape[2], half = x.shape[3] / 2,
                count = positions.shape.elements();
  if (x.shape.elements() == 0) return absl::OkStatus();
  float* const cosine = reinterpret_cast<float*>(a.workspace.data());
  float* const sine = cosine + count * half;
  const cudaStream_t stream = StreamOf(a);
  Angles<<<static_cast<unsigned>(std::min<int64_t>(count, 1024)), 64, 0, stream>>>(
      positions.as<const int32_t>(), count, static_cast<int>(half), rope, cosine, sine);
  const auto turn = [&](auto kernel, int64_t groups) {
    const auto across = static_cast<unsigned>(std::min<int64_t>(groups, kThreads));
    kernel<<<static_cast<unsigned>(tokens), dim3(across, kThreads / across), 0, stream>>>(
        x.as<const T>(), a.out[0].as<T>(), cosine, sine, count, static_cast<int>(heads), static_cast<int>(turned),
        static_cast<int>(half));
  };
  if (half % kWidth == 0 && Aligned16({x.data, a.out[0].data})) {
    turn(Turn<kWidth, T>, half / kWidth);
  } else {
    turn(Turn<1, T>, half);
  }
  return Launched("rope");
}

template <typename T>
absl::Status Run(const KernelArgs& a) {
  return Launch<T>(a, RopeAttributesOf(a.op), a.in[0].shape[2]);
}

template <typename T>
absl::Status RunPacked(const KernelArgs& a) {
  const FusedAttributes& packed = FusedAttributesOf(a.op);
  return Launch<T>(a, packed.rope, a.in[0].shape[2] / (packed.group + 2) * (packed.group + 1));
}

int64_t Workspace(const Op&, std::span<const TensorRef> in) {
  return in[1].shape.elements() * in[0].shape[3] * static_cast<int64_t>(sizeof(float));
}

}  // namespace

void AddCudaRopeKernels(KernelTable& table) {
  table.Add("rope", DType::kF32, {.run = Run<float>, .workspace = Workspace, .cost = StreamingCost});
  table.Add("rope", DType::kBF16, {.run = Run<CudaBF16>, .workspace = Workspace, .cost = StreamingCost});
  table.Add("rope_packed", DType::kF32, {.run = RunPacked<float>, .workspace = Workspace, .cost = StreamingCost});
  table.Add("rope_packed", DType::kBF16, {.run = RunPacked<CudaBF16>, .workspace = Workspace, .cost = StreamingCost});
}

}  // namespace strata
