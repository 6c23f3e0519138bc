#include "core/kernels/gelu_cpu.h"

#include "core/kernels/cpu_kernels.h"

namespace strata {
namespace {

template <typename T>
absl::Status Forward(const KernelArgs& a) {
  ForTiles(a.pool, a.out[0].shape.elements(), kFlatTile, [&](int64_t begin, int64_t end) {
    GeluSpan(GeluKindOf(a.op), a.in[0].as<const T>() + begin, a.out[0].as<T>() + begin, end - begin);
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status Dx(const KernelArgs& a) {  // dy, x
  ForTiles(a.pool, a.out[0].shape.elements(), kFlatTile, [&](int64_t begin, int64_t end) {
    GeluDxSpan(GeluKindOf(a.op), a.in[0].as<const T>() + begin, a.in[1].as<const T>() + begin, a.out[0].as<T>() + begin,
               end - begin);
  });
  return absl::OkStatus();
}

}  // namespace

void AddGeluKernels(KernelTable& table) {
  AddForFloats(table, "gelu", []<typename T>() { return Kernel{Forward<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "gelu_dx", []<typename T>() { return Kernel{Dx<T>, nullptr, StreamingCost}; });
}

}  // namespace strata
