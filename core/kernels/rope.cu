// Rotary position embedding (core/ops/rope.h has the maths). A first kernel makes cos and sin [P, D/2] in the workspace, of
// each of the P positions; positions are [S], or [B, S] where rows of the batch differ: token t has position t mod P.
#include <algorithm>

#include "core/kernels/cost.h"
#include "core/kernels/cuda_util.cuh"
#include "core/kernels/rope_cuda.h"
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
void Launch(const RopeTableCall& table, const TurnCall& c, cudaStream_t stream) {
  const auto turn = [&](auto kernel, int64_t groups) {
    const auto across = static_cast<unsigned>(std::min<int64_t>(groups, kThreads));
    kernel<<<static_cast<unsigned>(c.tokens), dim3(across, kThreads / across), 0, stream>>>(
        static_cast<const T*>(c.x), static_cast<T*>(c.y), table.table, table.table + table.count * table.half,
        table.count, static_cast<int>(c.heads), static_cast<int>(c.turned), static_cast<int>(table.half));
  };
  if (table.half % kWidth == 0 && Aligned16({c.x, c.y})) {
    turn(Turn<kWidth, T>, table.half / kWidth);
  } else {
    turn(Turn<1, T>, table.half);
  }
}

absl::Status Rotate(const KernelArgs& a, const RopeAttributes& rope, int64_t turned) {
  const TensorRef &x = a.in[0], &positions = a.in[1];
  if (x.shape.elements() == 0) return absl::OkStatus();
  const RopeTableCall table{rope, positions.as<const int32_t>(), positions.shape.elements(), x.shape[3] / 2,
                            reinterpret_cast<float*>(a.workspace.data())};
  const absl::Status made = MakeRopeTable(table, StreamOf(a));
  if (!made.ok()) return made;
  return TurnHeads(table, {x.dtype, x.shape[0] * x.shape[1], x.shape[2], turned, x.data, a.out[0].data}, StreamOf(a));
}

absl::Status Run(const KernelArgs& a) { return Rotate(a, RopeAttributesOf(a.op), a.in[0].shape[2]); }

absl::Status RunPacked(const KernelArgs& a) {
  const FusedAttributes& packed = FusedAttributesOf(a.op);
  return Rotate(a, packed.rope, a.in[0].shape[2] / (packed.group + 2) * (packed.group + 1));
}

int64_t Workspace(const Op&, std::span<const TensorRef> in) {
  return RopeTableBytes(in[1].shape.elements(), in[0].shape[3]);
}

}  // namespace

absl::Status MakeRopeTable(const RopeTableCall& c, cudaStream_t stream) {
  Angles<<<static_cast<unsigned>(std::min<int64_t>(c.count, 1024)), 64, 0, stream>>>(
      c.positions, c.count, static_cast<int>(c.half), c.rope, c.table, c.table + c.count * c.half);
  return Launched("the angles of rope");
}

absl::Status TurnHeads(const RopeTableCall& table, const TurnCall& call, cudaStream_t stream) {
  call.dtype == DType::kBF16 ? Launch<CudaBF16>(table, call, stream) : Launch<float>(table, call, stream);
  return Launched("rope");
}

void AddCudaRopeKernels(KernelTable& table) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    table.Add("rope", t, {.run = Run, .workspace = Workspace, .cost = StreamingCost});
    table.Add("rope_packed", t, {.run = RunPacked, .workspace = Workspace, .cost = StreamingCost});
  }
}

}  // namespace strata
