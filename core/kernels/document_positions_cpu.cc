// y[b, s] = positions[s] - starts[b, s].
#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"

namespace strata {
namespace {

absl::Status Run(const KernelArgs& a) {
  const int32_t *positions = a.in[0].as<const int32_t>(), *starts = a.in[1].as<const int32_t>();
  int32_t* y = a.out[0].as<int32_t>();
  const int64_t S = a.in[0].shape[0], n = a.out[0].shape.elements();
  for (int64_t i = 0; i < n; ++i) y[i] = positions[i % S] - starts[i];
  return absl::OkStatus();
}

}  // namespace

void AddDocumentKernels(KernelTable& table) {
  table.Add("document_positions", DType::kI32, {Run, nullptr, StreamingCost});
}

}  // namespace strata
