#include "core/kernels/attention_cudnn.h"

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/attention_sm90.h"
#include "core/kernels/cudnn_graph.h"

namespace strata {
namespace {

using Node = CudnnGraph::Node;

enum Uid : int64_t { kQ = 1, kK, kV, kO, kLse, kScale, kMasked, kOne, kDo, kDq, kDk, kDv, kRowSum, kDqSum, kFirstKeys };

int64_t Ceil(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// cuDNN's dims are [b, h, s, d] whatever the order in memory.
struct Operations {
  const AttentionShape& z;
  CudnnGraph& g;
  const std::array<int64_t, 4> scores{z.b, z.hq, z.sq, z.sk}, rows{z.b, z.hq, z.sq, 1};
  Node masked = nullptr;  // minus infinity

  static CudnnTensor Heads(int64_t b, int64_t h, int64_t s, int64_t d, int64_t row) {
    return {{b, h, s, d}, {s * row, d, row, 1}, CUDNN_DATA_BFLOAT16};
  }
  static CudnnTensor Transposed(CudnnTensor t) {
    std::swap(t.dim[2], t.dim[3]);
    std::swap(t.stride[2], t.stride[3]);
    return t;
  }
  CudnnTensor Query() const { return Heads(z.b, z.hq, z.sq, z.d, z.q_row); }
  CudnnTensor Key() const { return Heads(z.b, z.hk, z.sk, z.d, z.kv_row); }
  CudnnTensor Out() const { return Heads(z.b, z.hq, z.sq, z.d, z.hq * z.d); }
  CudnnTensor Lse() const { return {rows, {z.sq * z.hq, 1, z.hq, 1}, CUDNN_DATA_FLOAT}; }

  Node Temporary(const std::array<int64_t, 4>& dim, cudnnDataType_t type = CUDNN_DATA_FLOAT) {
    return g.Virtual(DenseTensor(dim, type));
  }
  Node Apply(cudnnPointwiseMode_t mode, Node x, Node b = nullptr) { return g.Pointwise(mode, x, b, Temporary(scores)); }

  Node Where(Node a, Node is_at_least, Node s) {  // s, or -inf where a < b
    const Node sees = g.Pointwise(CUDNN_POINTWISE_CMP_GE, a, is_at_least, Temporary(scores, CUDNN_DATA_BOOLEAN));
    return g.Pointwise(CUDNN_POINTWISE_BINARY_SELECT, s, masked, Temporary(scores), sees);
  }
  // Two selections in turn: cuDNN 9.19 has no engine for one by the conjunction.
  Node Mask(Node s) {
    if (z.mask == AttentionMask::kFull) return s;
    const Node query = g.Index(2, s, Temporary(scores, CUDNN_DATA_INT32));
    const Node key = g.Index(3, s, Temporary(scores, CUDNN_DATA_INT32));
    masked = g.Scalar(kMasked);
    const Node causal = Where(query, key, s);
    if (!z.documents) return causal;
    return Where(key, g.Operand(kFirstKeys, DenseTensor({z.b, 1, z.sq, 1}, CUDNN_DATA_INT32)), causal);
  }

  // lse = max + log sum exp(s - max); o = exp(s - max) / sum v.
  void Forward() {
    const Node q = g.Operand(kQ, Query()), kt = g.Operand(kK, Transposed(Key())), v = g.Operand(kV, Key());
    const Node o = g.Operand(kO, Out()), lse = g.Operand(kLse, Lse());
    Node s = g.MatMul(q, kt, Temporary(scores));
    s = Mask(Apply(CUDNN_POINTWISE_MUL, s, g.Scalar(kScale)));
    const Node max = g.Reduce(CUDNN_REDUCE_TENSOR_MAX, s, Temporary(rows));
    const Node e = Apply(CUDNN_POINTWISE_EXP, Apply(CUDNN_POINTWISE_SUB, s, max));
    const Node sum = g.Reduce(CUDNN_REDUCE_TENSOR_ADD, e, Temporary(rows));
    g.Pointwise(CUDNN_POINTWISE_ADD, max, g.Pointwise(CUDNN_POINTWISE_LOG, sum, nullptr, Temporary(rows)), lse);
    g.MatMul(g.Pointwise(CUDNN_POINTWISE_DIV, e, sum, Temporary(scores, CUDNN_DATA_BFLOAT16)), v, o);
  }

  Node TransposedScores(Node x) {  // [b, hq, sk, sq], rounded
    return g.Reshape(
        x, g.Virtual({{z.b, z.hq, z.sk, z.sq}, {z.hq * z.sq * z.sk, z.sq * z.sk, 1, z.sk}, CUDNN_DATA_BFLOAT16}));
  }
  // y = x^T rows, summed over the query heads of a kv head.
  void KeyGradient(Node x, Node rows_of_queries, Node y) {
    const Node t = TransposedScores(x);
    if (z.hq == z.hk) {
      g.MatMul(t, rows_of_queries, y);
    } else {
      const Node whole = Temporary({z.b, z.hq, z.sk, z.d}, CUDNN_DATA_BFLOAT16);
      g.Reduce(CUDNN_REDUCE_TENSOR_ADD, g.MatMul(t, rows_of_queries, whole), y);
    }
  }

  // p = exp(s - lse); dv = p^T do; ds = p (do v^T - rowsum(do o)) scale; dk = ds^T q; dq = ds k.
  void Backward() {
    const Node q = g.Operand(kQ, Query()), kt = g.Operand(kK, Transposed(Key())), vt = g.Operand(kV, Transposed(Key()));
    const Node o = g.Operand(kO, Out()), lse = g.Operand(kLse, Lse()), d_o = g.Operand(kDo, Out());
    const Node dq = g.Operand(kDq, Query()), dk = g.Operand(kDk, Key()), dv = g.Operand(kDv, Key());
    const Node product = g.Pointwise(CUDNN_POINTWISE_MUL, d_o, o, Temporary({z.b, z.hq, z.sq, z.d}));
    const Node sum = g.Reduce(CUDNN_REDUCE_TENSOR_ADD, product, Temporary(rows));
    const Node row_sum =
        g.Pointwise(CUDNN_POINTWISE_MUL, sum, g.Scalar(kOne), g.Operand(kRowSum, DenseTensor(rows, CUDNN_DATA_FLOAT)));
    const Node scale = g.Scalar(kScale);
    const Node s = Apply(CUDNN_POINTWISE_MUL, g.MatMul(q, kt, Temporary(scores)), scale);
    const Node p = Apply(CUDNN_POINTWISE_EXP, Mask(Apply(CUDNN_POINTWISE_SUB, s, lse)));
    KeyGradient(p, d_o, dv);
    const Node dp = g.MatMul(d_o, vt, Temporary(scores));
    const Node ds =
        Apply(CUDNN_POINTWISE_MUL, Apply(CUDNN_POINTWISE_MUL, Apply(CUDNN_POINTWISE_SUB, dp, row_sum), p), scale);
    KeyGradient(ds, q, dk);
    const Node k = g.Reshape(kt, g.Virtual(Key()));
    const Node dq_sum = g.MatMul(ds, k, g.Operand(kDqSum, DenseTensor({z.b, z.hq, z.sq, z.d}, CUDNN_DATA_FLOAT)));
    g.Pointwise(CUDNN_POINTWISE_IDENTITY, dq_sum, nullptr, dq);
  }
};

// What the Scalar()s are. cuDNN reads them at launch.
struct Scalars {
  float scale, masked = -std::numeric_limits<float>::infinity(), one = 1;
};

}  // namespace

std::string ToString(const AttentionShape& z) {
  return absl::StrFormat("attention %s of %s, b %d, heads %d/%d, s %d/%d, d %d, %s%s%s",
                         z.pass == AttentionPass::kForward ? "forward" : "backward", Name(z.dtype), z.b, z.hq, z.hk,
                         z.sq, z.sk, z.d, z.mask == AttentionMask::kCausal ? "causal" : "full",
                         z.documents ? ", documents" : "", z.turns ? ", turned back" : "");
}

absl::Status CheckAttentionShape(const AttentionShape& z) {
  if (z.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrFormat("cuDNN's attention is wrong with %s results: use bf16 and accumulate outside", Name(z.dtype)));
  }
  if (z.d % 8 != 0 || z.d < 8 || z.d > 256) {
    return absl::InvalidArgumentError(
        absl::StrFormat("cuDNN's attention needs a head dim that is a multiple of 8 up to 256, not %d", z.d));
  }
  if (z.documents && z.mask != AttentionMask::kCausal) {
    return absl::InvalidArgumentError("only causal attention keeps documents apart");
  }
  if (z.b < 1 || z.sq < 1 || z.sk < 1 || z.hk < 1 || z.hq % z.hk != 0 || z.q_row % 8 != 0 || z.kv_row % 8 != 0) {
    return absl::InvalidArgumentError("cuDNN's attention cannot take this shape: " + ToString(z));
  }
  return absl::OkStatus();
}

AttentionWorkspace AttentionWorkspaceOf(const AttentionShape& z) {
  constexpr int64_t kSlack = 64 << 10;
  const bool backward = z.pass == AttentionPass::kBackward;
  AttentionWorkspace w;
  if (backward) {
    const int64_t queries = z.b * z.hq * z.sq;
    w.dq_sum = Ceil(queries * 4, 256);
    w.first_keys = w.dq_sum + Ceil(queries * z.d * 4, 256);
  }
  w.library = w.first_keys + (z.documents ? Ceil(z.b * z.sq * 4, 256) : 0);
  w.total = w.library + kSlack;
  if (backward && z.hq != z.hk) w.total += 2 * Ceil(z.b * z.hq * z.sk * z.d * 2, 256);  // whole dk and dv
  return w;
}

int32_t* FirstKeysIn(const AttentionShape& shape, const AttentionOperands& operands) {
  return reinterpret_cast<int32_t*>(operands.workspace.data() + AttentionWorkspaceOf(shape).first_keys);
}

absl::StatusOr<std::unique_ptr<CudnnGraph>> AttentionGraph(const CudnnLibrary& library, const AttentionShape& shape) {
  RETURN_IF_ERROR(CheckAttentionShape(shape));
  auto graph = std::make_unique<CudnnGraph>(library);
  Operations operations{shape, *graph};
  if (shape.pass == AttentionPass::kForward) {
    operations.Forward();
  } else {
    operations.Backward();
  }
  return graph;
}

absl::StatusOr<double> SecondsOf(const std::function<absl::Status()>& launch, void* native) {
  constexpr int kWarmup = 2, kRuns = 8;
  for (int i = 0; i < kWarmup; ++i) RETURN_IF_ERROR(launch());
  return SecondsOnStream(static_cast<cudaStream_t>(native), kRuns, launch);
}

AttentionPlans::AttentionPlans(const std::string& device) {
  absl::StatusOr<CudnnLibrary> library = CudnnLibrary::Open();
  usable_ = library.status();
  if (!usable_.ok()) return;
  library_ = std::make_unique<CudnnLibrary>(*library);
  cudnnHandle_t handle = nullptr;
  if (const absl::Status s = library_->Check(library_->Create(&handle), "cudnnCreate"); !s.ok()) {
    usable_ = absl::FailedPreconditionError(s.message());
  }
  handle_ = handle;
  cache_ = ChoiceCache(Env::Posix(), "attention", device,
                       absl::StrFormat("cudnn-%s-sm90-%d", version(), kSm90AttentionGeneration));
}

namespace {

std::string KeyOf(const AttentionShape& shape) {
  return absl::StrReplaceAll(absl::StrFormat("%s, rows %d/%d", ToString(shape), shape.q_row, shape.kv_row),
                             {{" ", "_"}});
}

}  // namespace

const std::string* AttentionPlans::Fastest(const AttentionShape& shape) const { return cache_.Find(KeyOf(shape)); }
void AttentionPlans::SetFastest(const AttentionShape& shape, std::string what) {
  cache_.Put(KeyOf(shape), std::move(what));
}

AttentionPlans::~AttentionPlans() {
  plans_.clear();
  if (handle_ != nullptr) library_->Destroy(static_cast<cudnnHandle_t>(handle_));
}

std::string AttentionPlans::version() const {
  return usable_.ok() ? CudnnVersionName(static_cast<int64_t>(library_->GetVersion())) : "";
}

absl::Status AttentionPlans::Prepare(const AttentionShape& shape, const AttentionOperands& operands,
                                     Determinism determinism) {
  RETURN_IF_ERROR(usable_);
  if (Has(shape)) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::unique_ptr<CudnnGraph> graph, AttentionGraph(*library_, shape));
  const absl::Status built =
      graph->Build(static_cast<cudnnHandle_t>(handle_), AttentionWorkspaceOf(shape).library_bytes());
  if (!built.ok()) return Annotate(built, absl::StrFormat("%s, cuDNN %s", ToString(shape), version()));
  CudnnGraph& g = *(plans_[shape] = std::move(graph));
  absl::Status chosen = absl::OkStatus();
  if (determinism == Determinism::kBitExact) {
    g.Use(0);
  } else {
    chosen = ChooseFastest(shape, g, operands);
  }
  if (!chosen.ok()) plans_.erase(shape);
  return chosen;
}

absl::Status AttentionPlans::ChooseFastest(const AttentionShape& shape, CudnnGraph& g,
                                           const AttentionOperands& operands) {
  if (g.num_plans() == 1) return absl::OkStatus();
  int best = 0;
  double best_seconds = std::numeric_limits<double>::infinity();
  for (int i = 0; i < g.num_plans(); ++i) {
    g.Use(i);
    ASSIGN_OR_RETURN(const double seconds, SecondsOf([&] { return Run(shape, operands); }, operands.stream));
    if (seconds < best_seconds) best = i, best_seconds = seconds;
  }
  g.Use(best);
  return absl::OkStatus();
}

void AttentionPlans::Leave(const AttentionShape& shape) { plans_.erase(shape); }

std::string AttentionPlans::Choices() const {
  std::string text;
  for (const auto& [shape, what] : chosen_) text += ToString(shape) + ": " + what + "\n";
  return text;
}

absl::Status AttentionPlans::Run(const AttentionShape& shape, const AttentionOperands& x) {
  const auto plan = plans_.find(shape);
  if (plan == plans_.end()) return absl::InternalError("no plan was made for " + ToString(shape));
  const auto handle = static_cast<cudnnHandle_t>(handle_);
  RETURN_IF_ERROR(library_->Check(library_->SetStream(handle, static_cast<cudaStream_t>(x.stream)), "cudnnSetStream"));

  const AttentionWorkspace w = AttentionWorkspaceOf(shape);
  if (static_cast<int64_t>(x.workspace.size()) < w.total) return absl::InternalError("attention: a small workspace");
  Scalars scalars{static_cast<float>(1 / std::sqrt(static_cast<double>(shape.d)))};
  std::array<int64_t, 15> uids{};
  std::array<void*, 15> data{};
  size_t n = 0;
  const auto pass = [&](Uid uid, const void* p) {
    uids[n] = uid;
    data[n++] = const_cast<void*>(p);
  };
  pass(kQ, x.q), pass(kK, x.k), pass(kV, x.v), pass(kO, x.o), pass(kLse, x.lse), pass(kScale, &scalars.scale);
  if (shape.mask == AttentionMask::kCausal) pass(kMasked, &scalars.masked);
  if (shape.documents) pass(kFirstKeys, FirstKeysIn(shape, x));
  if (shape.pass == AttentionPass::kBackward) {
    pass(kDo, x.d_o), pass(kDq, x.dq), pass(kDk, x.dk), pass(kDv, x.dv), pass(kOne, &scalars.one);
    pass(kRowSum, x.workspace.data() + w.row_sum);
    pass(kDqSum, x.workspace.data() + w.dq_sum);
  }
  return plan->second->Execute({uids.data(), n}, {data.data(), n}, x.workspace.data() + w.library);
}

}  // namespace strata
