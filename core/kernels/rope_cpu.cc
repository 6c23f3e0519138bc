// Rotary position embedding on the CPU (core/ops/rope.h has the maths). The workspace holds the table of angles, made once and
// used for every head, and for every batch row where the positions are [S].
#include "core/kernels/rope_cpu.h"

#include "core/kernels/cpu_kernels.h"

namespace strata {
namespace {

template <typename T>
int64_t Workspace(const Op&, std::span<const TensorRef> in) {
  return RopeTableBytes<ComputeType<T>>(in[1].shape.elements(), in[0].shape[3]);
}

template <typename T>
absl::Status Run(const KernelArgs& a) {
  using C = ComputeType<T>;
  const Shape& shape = a.in[0].shape;
  const int64_t H = shape[2], D = shape[3];
  const RopeTable<C> table = MakeRopeTable<C>(RopeAttributesOf(a.op), a.in[1], D, a.workspace.data(), a.pool);
  const T* x = a.in[0].as<T>();
  T* y = a.out[0].as<T>();
  ParallelFor(a.pool, shape[0] * shape[1],
              [&](int64_t token) { TurnHeads(table, token, H, x + token * H * D, y + token * H * D); });
  return absl::OkStatus();
}

}  // namespace

void AddRopeKernels(KernelTable& table) {
  AddForFloats(table, "rope", []<typename T>() { return Kernel{Run<T>, Workspace<T>, StreamingCost}; });
}

}  // namespace strata
