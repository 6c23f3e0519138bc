#pragma once
// Matrix products on the GPU by cuBLASLt, which is opened at run time, or on Hopper by kernels of our own (gemm_sm90.h). What computes a
// shape is chosen once, by timing what cuBLASLt's heuristic proposes and our own on random data, and kept in a file for the
// next start (choice_cache.h).

#include <cublasLt.h>

#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/choice_cache.h"

namespace strata {

class Sm90Gemm;  // gemm_sm90.h

// How a kernel of ours takes the tiles of D.
struct Sm90Config {
  int group = 8;       // tiles of 256 rows that share columns in the L2 cache
  bool cut_k = false;  // what does not fill a last wave is cut along k
  // A cluster's blocks, which share what they load, and a block's tile of D: two or four blocks of 128 x 256, which two warpgroups
  // multiply together; or two whose warpgroups have tiles of their own and multiply in turn, of 128 x 192 or of 192 x 128.
  enum class Form { kPair, kFour, kWide, kTall };
  Form form = Form::kPair;
  std::string Name() const;  // "sm90 8 0 pair"
  static absl::StatusOr<Sm90Config> Parse(const std::string& name);
};

inline constexpr int64_t kGemmWorkspaceBytes = int64_t{64} << 20;

// What is done with a product's result before it leaves the chip. kSwiglu: B^T is gate's rows [n / 2, k], then up's; D is gate | up
// and h[m, n / 2] = silu(gate) up. kSwigluDx: the product is dh[m, n]; D[m, 2 n] is the gradient by gate | up. kGelu: D is pre, with
// its bias, and h[m, n] = gelu(pre), in the tanh form. kGeluDx: the product is dh; D is the gradient by pre. These two
// cuBLASLt has too, which does them in float32, before the product is rounded; n is a multiple of 8. kRope: rows of D are heads, of
// which the first are turned (core/ops/rope.h). kGeluDxSums: kGeluDx, and the sums of D's columns in parts. kSquares: D, and the sum of
// its squares in parts (core/ops/squares.h); beta is 0.
enum class GemmFusion : uint8_t { kNone, kSwiglu, kSwigluDx, kGelu, kGeluDx, kRope, kGeluDxSums, kSquares };
inline constexpr int64_t kGemmSumRows = 8 * 132;  // parts of the sums, by the warp of ours that adds them

// D[m, n] = op(A) op(B) + beta C (+ bias), row-major; sums in float32. A and B are contiguous and have one dtype. C has D's dtype,
// shape and pitch, and may be D.
struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;  // A is stored [k, m]; B is stored [n, k]
  DType in = DType::kBF16, out = DType::kBF16;
  bool bias = false;    // + bias[n], of D's dtype, in every row
  int32_t align = 256;  // bytes: the least alignment of the operands
  int64_t ldd = 0;      // elements from one row of D to the next; 0: n
  GemmFusion fusion = GemmFusion::kNone;
  int32_t head_dim = 0;  // of kRope
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
    void* h = nullptr;              // kSwiglu: [m, n / 2]; kGelu: [m, n]
    const void* gate_up = nullptr;  // kSwigluDx: [m, 2 n]
    const void* pre = nullptr;      // kGeluDx, kGeluDxSums: [m, n]
    // kRope: a tiled table of rotations (rope_cuda.h); row r of D takes row r mod angle_rows, and columns before `turned`, a
    // multiple of head_dim, are turned.
    const void* angles = nullptr;
    int64_t angle_rows = 0, turned = 0;
    float* sums = nullptr;  // kGeluDxSums: [kGemmSumRows, n], which add up to the sums; kSquares: [kSquareParts]
  };
  // Chooses the algorithm of the shape: the fastest, or cuBLASLt's first that runs, always the same one. Writes random numbers
  // over all operands. Blocks. Errors: FailedPrecondition where cuBLASLt has none for it.
  enum class Search : uint8_t { kTimed, kFirst };
  absl::Status Prepare(const GemmShape& shape, const Operands& operands, Search search);
  // Of a shape with a fusion: chooses between one kernel and `apart`, which launches the same in two.
  absl::Status PrepareFused(const GemmShape& shape, const Operands& operands, Search search,
                            const std::function<absl::Status()>& apart);
  // Whether one kernel was chosen, which Run() then launches.
  bool Fuses(const GemmShape& shape) const;
  // Only launches; Prepare was called for the shape.
  absl::Status Run(const GemmShape& shape, const Operands& operands);

  std::string version() const { return version_; }
  // A line a shape: "product m 16384, n 2048, k 5632, A B^T, bf16 to bf16: cuBLASLt; ours (sm90 8 0 2) 0.571 ms; cuBLASLt 0.561 ms".
  std::string Choices() const;

 private:
  struct Library;
  struct Plan;

  GemmPlans();
  absl::Status Check(cublasStatus_t status, const char* call) const;
  absl::StatusOr<std::unique_ptr<Plan>> MakePlan(const GemmShape& shape) const;
  absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> Propose(const GemmShape& shape, const Plan& plan,
                                                            const Operands& o) const;
  absl::Status Choose(const GemmShape& shape, Plan& plan, const Operands& o, Search search);
  absl::Status Launch(Plan& plan, const Operands& o, const cublasLtMatmulAlgo_t& algorithm) const;
  absl::Status Bind(Plan& plan, const Operands& o) const;
  absl::Status FillOperands(const GemmShape& shape, const Operands& o) const;
  absl::Status ChooseOwn(const GemmShape& shape, const Operands& o, const std::function<absl::Status()>& apart);
  absl::Status ChooseEpilogue(const GemmShape& shape, const Operands& o, const std::function<absl::Status()>& apart);
  void KeepApart(const GemmShape& shape, std::string why);

  std::unique_ptr<Library> library_;
  std::unique_ptr<Sm90Gemm> own_;
  cublasLtHandle_t handle_ = nullptr;
  std::string version_;
  // By shape the 64 bytes of cuBLASLt's algorithm in hexadecimal, or the name of a configuration of ours, or "apart".
  ChoiceCache cache_;
  std::map<GemmShape, std::unique_ptr<Plan>> plans_;
  std::map<GemmShape, std::string> apart_;  // shapes with a fusion that take two kernels, and what was measured
};

// Uniform random numbers in [-1, 1) of dtype f32 or bf16.
absl::Status FillRandom(void* data, DType dtype, int64_t count, uint64_t seed, cudaStream_t stream);

}  // namespace strata
