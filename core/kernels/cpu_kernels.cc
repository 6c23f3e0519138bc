#include "core/kernels/cpu_kernels.h"

#include "absl/strings/str_format.h"

namespace strata {

void KernelTable::Add(std::string op, DType dtype, Kernel kernel) { table_[{std::move(op), dtype}].push_back(kernel); }

absl::StatusOr<const Kernel*> KernelTable::Find(std::string_view op, DType dtype, bool deterministic) const {
  const auto it = table_.find({std::string(op), dtype});
  if (it != table_.end()) {
    for (const Kernel& k : it->second) {
      if (k.deterministic || !deterministic) return &k;
    }
  }
  return absl::NotFoundError(absl::StrFormat("no kernel for %s in %s", op, Name(dtype)));
}

bool KernelTable::Has(std::string_view op) const {
  const auto it = table_.lower_bound({std::string(op), DType::kF64});
  return it != table_.end() && it->first.first == op;
}

KernelTable CpuKernels() {
  KernelTable table;
  AddElementwiseKernels(table);
  AddLinearKernels(table);
  AddLinearFusedKernels(table);
  AddEmbeddingKernels(table);
  AddMoveKernels(table);
  AddNormKernels(table);
  AddLayerNormKernels(table);
  AddBiasKernels(table);
  AddGeluKernels(table);
  AddDropoutKernels(table);
  AddRopeKernels(table);
  AddDocumentKernels(table);
  AddAttentionKernels(table);
  AddCrossEntropyKernels(table);
  AddOptimizerKernels(table);
  AddConvertKernels(table);
  AddFlatKernels(table);
  AddQuantizeKernels(table);
  AddSumPartsKernels(table);
  AddSquaresKernels(table);
  return table;
}

}  // namespace strata
