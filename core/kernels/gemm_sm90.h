#pragma once
// Matrix products of our own on Hopper's warpgroup instructions: bf16, also with SwiGLU, its gradient or rotary positions done on the
// results before they leave the chip. GemmPlans times them beside cuBLASLt. CUDA sources only.

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/kernels/gemm_cuda.h"

namespace strata {

// Of the kernels and their configurations, one more with each change of what is worth choosing: choices cached with another one are made again.
inline constexpr int kSm90Generation = 6;

// Of one GPU, used by its rank's thread.
class Sm90Gemm {
 public:
  explicit Sm90Gemm(const CudaContext& context);

  // Whether this product can run here: Hopper, bf16 operands, layouts and alignments that there are kernels for.
  bool Runs(const GemmShape& shape, const GemmPlans::Operands& operands) const;
  // Whether there is a kernel of this form for it.
  bool Has(const GemmShape& shape, const Sm90Config& config) const;
  // The configurations worth timing.
  std::vector<Sm90Config> Configs(const GemmShape& shape) const;
  // Only launches. Errors: Internal for what does not run.
  absl::Status Run(const GemmShape& shape, const GemmPlans::Operands& operands, Sm90Config config);

 private:
  int major_ = 0, multiprocessors_ = 0;
  std::map<const void*, int> clusters_;  // kernel -> how many run at the same time; 0: none
};

}  // namespace strata
