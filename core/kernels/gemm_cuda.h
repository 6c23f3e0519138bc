#pragma once
// Matrix products on the GPU by cuBLASLt, which is opened at run time. The algorithm of a shape is chosen once, by timing what
// the heuristic proposes on random data, and kept in a file for the next start: $STRATA_CACHE, else
// $XDG_CACHE_HOME/strata or ~/.cache/strata, named by device and cuBLASLt version.

#include <cublasLt.h>

#include <compare>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/exec/cuda_context.h"

namespace strata {

inline constexpr int64_t kGemmWorkspaceBytes = int64_t{64} << 20;

// D[m, n] = op(A) op(B) + beta C (+ bias), row-major; sums in float32. A and B are contiguous and have one dtype. C has D's dtype,
// shape and pitch, and may be D.
struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;  // A is stored [k, m]; B is stored [n, k]
  DType in = DType::kBF16, out = DType::kBF16;
  bool bias = false;    // + bias[n], of D's dtype, in every row
  int32_t align = 256;  // bytes: the least alignment of the operands
  int64_t ldd = 0;      // elements from one row of D to the next; 0: n
  int64_t pitch() const { return ldd > 0 ? ldd : n; }
  auto operator<=>(const GemmShape&) const = default;
};

// Of one GPU, used by its rank's thread.
class GemmPlans {
 public:
  // Errors: FailedPrecondition where the library is missing or too old.
  static absl::StatusOr<std::shared_ptr<GemmPlans>> Open(const CudaContext& context);
  ~GemmPlans();
  GemmPlans(const GemmPlans&) = delete;
  GemmPlans& operator=(const GemmPlans&) = delete;

  struct Operands {
    const void *a, *b, *c, *bias;
    void* d;
    float beta;
    std::span<std::byte> workspace;
    cudaStream_t stream;
  };
  // Chooses the algorithm of the shape: the fastest, or cuBLASLt's first that runs, always the same one. Writes random numbers
  // over all operands. Blocks. Errors: FailedPrecondition where cuBLASLt has none for it.
  enum class Search : uint8_t { kTimed, kFirst };
  absl::Status Prepare(const GemmShape& shape, const Operands& operands, Search search);
  // Only launches; Prepare was called for the shape.
  absl::Status Run(const GemmShape& shape, const Operands& operands);

  std::string version() const { return version_; }
  struct Choice {                           // for `strata bench gemm`
    double seconds = 0, first_seconds = 0;  // of the chosen algorithm, and of the heuristic's first; 0: from the file
    int tried = 0;
  };
  Choice ChoiceOf(const GemmShape& shape) const;

 private:
  struct Library;
  struct Plan;

  GemmPlans();
  absl::Status Check(cublasStatus_t status, const char* call) const;
  absl::StatusOr<std::unique_ptr<Plan>> MakePlan(const GemmShape& shape) const;
  absl::Status Choose(const GemmShape& shape, Plan& plan, const Operands& o, Search search) const;
  absl::Status Launch(Plan& plan, const Operands& o, const cublasLtMatmulAlgo_t& algorithm) const;
  void LoadCache();
  void SaveCache() const;

  std::unique_ptr<Library> library_;
  cublasLtHandle_t handle_ = nullptr;
  std::string version_, cache_path_;
  std::map<std::string, std::string> cache_;  // shape -> algorithm, both as text
  std::map<GemmShape, std::unique_ptr<Plan>> plans_;
};

// Uniform random numbers in [-1, 1) of dtype f32 or bf16.
absl::Status FillRandom(void* data, DType dtype, int64_t count, uint64_t seed, cudaStream_t stream);

}  // namespace strata
