#pragma once
// Attention by cuDNN (FlashAttention 2 and 3 kernels), forward and backward, as composite operation graphs; core/ops/attention.h
// has the maths. Plans take most of a second to make and are kept by shape.
// A query at index i sees the keys at indices <= i (kCausal) or all. bf16 operands and results; softmax, lse and sums are
// float32, probabilities and their gradients are rounded to bf16 for the products.

#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "core/exec/device.h"
#include "core/kernels/choice_cache.h"
#include "core/ops/attention.h"

namespace strata {

class CudnnGraph;
struct CudnnLibrary;

enum class AttentionPass : uint8_t { kForward, kBackward };

// q[b, sq, hq, d], k and v[b, sk, hk, d] with rows (tokens) `q_row` and `kv_row` elements apart, so that they may be parts of
// one packed tensor; their gradients likewise. o and its gradient [b, sq, hq, d] are dense, lse is [b, sq, hq].
struct AttentionShape {
  int64_t b = 0, hq = 0, hk = 0, sq = 0, sk = 0, d = 0, q_row = 0, kv_row = 0;
  AttentionMask mask = AttentionMask::kCausal;
  AttentionPass pass = AttentionPass::kForward;
  DType dtype = DType::kBF16;
  bool documents = false;  // a query sees no key before the first one of its document: kCausal only
  bool turns = false;      // heads of dq and dk are turned afterwards, by somebody else
  auto operator<=>(const AttentionShape&) const = default;
};
std::string ToString(const AttentionShape& shape);

// OK where cuDNN's attention can be trusted with the shape; InvalidArgument says why not. float32 results are accepted by
// cuDNN 9.19 and come out wrong: accumulate outside.
absl::Status CheckAttentionShape(const AttentionShape& shape);

// The workspace of one call, without asking cuDNN: our float32 rowsum(do * o)[b, hq, sq] and sums of dq[b, hq, sq, d], with
// documents the first key of each query, int32 [b, sq], then what cuDNN needs at most. Offsets are multiples of 256 bytes.
struct AttentionWorkspace {
  int64_t row_sum = 0, dq_sum = 0, first_keys = 0, library = 0, total = 0;  // offsets, and the end
  int64_t library_bytes() const { return total - library; }
};
AttentionWorkspace AttentionWorkspaceOf(const AttentionShape& shape);

struct AttentionOperands {
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  void* o = nullptr;    // written by the forward pass, read by the backward pass, like lse
  void* lse = nullptr;  // float32
  const void* d_o = nullptr;
  void *dq = nullptr, *dk = nullptr, *dv = nullptr;
  std::span<std::byte> workspace;
  void* stream = nullptr;  // cudaStream_t
};

// Where Run() reads the index of the first key that each query sees: the caller writes it, on the same stream.
int32_t* FirstKeysIn(const AttentionShape& shape, const AttentionOperands& operands);

// Of an average launch, after some. Blocks.
absl::StatusOr<double> SecondsOf(const std::function<absl::Status()>& launch, void* stream);

// Of one GPU, used by its rank's thread.
class AttentionPlans {
 public:
  explicit AttentionPlans(const std::string& device);  // its name: choices are kept in a file for the next start
  ~AttentionPlans();
  AttentionPlans(const AttentionPlans&) = delete;
  AttentionPlans& operator=(const AttentionPlans&) = delete;

  // Whether there is a cuDNN that can be used; FailedPrecondition says why not.
  const absl::Status& usable() const { return usable_; }
  std::string version() const;  // "9.19.0"; empty where it is not usable

  // Makes the shape's plan. Errors: FailedPrecondition where cuDNN cannot be used or has no engine, InvalidArgument as
  // CheckAttentionShape, ResourceExhausted where the plan needs more workspace than AttentionWorkspaceOf() promises.
  // Of several engines the one that is fastest on these operands, which hold random numbers; or cuDNN's first, always the
  // same one. Blocks.
  absl::Status Prepare(const AttentionShape& shape, const AttentionOperands& operands, Determinism determinism);
  bool Has(const AttentionShape& shape) const { return plans_.contains(shape); }
  // Drops the shape's plan: something else is faster.
  void Leave(const AttentionShape& shape);
  // What computes the shape, for people to read, once it is chosen for good.
  void Choose(const AttentionShape& shape, std::string what) { chosen_[shape] = std::move(what); }
  bool Chosen(const AttentionShape& shape) const { return chosen_.contains(shape); }
  // What was fastest at an earlier start, or in this one; null where that is not known.
  const std::string* Fastest(const AttentionShape& shape) const;
  void SetFastest(const AttentionShape& shape, std::string what);
  std::string Choices() const;  // a line a shape: "attention forward of bf16, b 8, ...: cuDNN"
  // Only launches; Prepare() made the plan.
  absl::Status Run(const AttentionShape& shape, const AttentionOperands& operands);

 private:
  absl::Status ChooseFastest(const AttentionShape& shape, CudnnGraph& graph, const AttentionOperands& operands);

  std::unique_ptr<CudnnLibrary> library_;
  void* handle_ = nullptr;  // cudnnHandle_t
  absl::Status usable_;
  std::map<AttentionShape, std::unique_ptr<CudnnGraph>> plans_;
  std::map<AttentionShape, std::string> chosen_;
  ChoiceCache cache_;
};

// For tests: the operations of the shape, not yet built.
absl::StatusOr<std::unique_ptr<CudnnGraph>> AttentionGraph(const CudnnLibrary& library, const AttentionShape& shape);

}  // namespace strata
