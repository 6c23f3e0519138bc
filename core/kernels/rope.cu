// Rotary position embedding (core/ops/rope.h has the maths). A first kernel makes {cos, sin} [P, D/2] in the workspace, of
// each of the P positions; positions are [S], or [B, S] where rows of the batch differ: token t has position t mod P.
#include <algorithm>

#include "core/kernels/cost.h"
#include "core/kernels/cuda_util.cuh"
#include "core/kernels/rope.cuh"
#include "core/kernels/rope_cuda.h"
#include "core/ops/fused.h"
#include "core/ops/rope.h"

namespace strata {
namespace {

constexpr int kThreads = 128, kWidth = 8;

__global__ void Angles(const int32_t* positions, int64_t count, int half, RopeAttributes rope, float2* table) {
  for (int i = threadIdx.x; i < half; i += blockDim.x) {
    const double frequency = ScaledFrequency(rope.scaling, pow(rope.theta, -static_cast<double>(i) / half));
    const double sign = rope.direction == RopeDirection::kForward ? 1 : -1;
    for (int64_t p = blockIdx.x; p < count; p += gridDim.x) {
      double s, c;
      sincos(positions[p] * frequency, &s, &c);
      table[RopeTableAt(count, half, p, i)] = make_float2(static_cast<float>(c), static_cast<float>(sign * s));
    }
  }
}

template <int kPairs>
__device__ __forceinline__ void LoadAngles(const float2* from, float2 (&angles)[kPairs]) {
  if constexpr (kPairs == 1) {
    angles[0] = *from;
  } else {
    float x[2 * kPairs];
    LoadFloats(reinterpret_cast<const float*>(from), x);
#pragma unroll
    for (int j = 0; j < kPairs; ++j) angles[j] = make_float2(x[2 * j], x[2 * j + 1]);
  }
}

// A block is a token of `heads` heads: the first `turned` of them are turned, the others copied, or left alone in place.
template <int kPairs, typename T>
__global__ void __launch_bounds__(kThreads)
    Turn(const T* x, T* y, const float2* table, int64_t positions, int heads, int turned, int half) {
  const int64_t token = blockIdx.x, row = token % positions;
  x += token * heads * 2 * half;
  y += token * heads * 2 * half;
  for (int h = threadIdx.y; h < turned; h += blockDim.y) {
    for (int i = threadIdx.x * kPairs; i < half; i += blockDim.x * kPairs) {
      const int at = h * 2 * half + i;
      float u[kPairs], v[kPairs];
      float2 angles[kPairs];
      LoadFloats(x + at, u);
      LoadFloats(x + at + half, v);
      LoadAngles(table + RopeTableAt(positions, half, row, i), angles);
#pragma unroll
      for (int j = 0; j < kPairs; ++j) TurnPair(u[j], v[j], angles[j]);
      StoreFloats(y + at, u);
      StoreFloats(y + at + half, v);
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
        static_cast<const T*>(c.x), static_cast<T*>(c.y), table.table, table.count, static_cast<int>(c.heads),
        static_cast<int>(c.turned), static_cast<int>(table.half));
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
                            reinterpret_cast<float2*>(a.workspace.data())};
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
      c.positions, c.count, static_cast<int>(c.half), c.rope, c.table);
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
