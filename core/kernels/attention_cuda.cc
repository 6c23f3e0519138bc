// The attention ops (core/ops/attention.h, core/ops/fused.h) on the GPU: cuDNN or our Hopper kernels, whichever is faster, where
// they take the shape, plain kernels elsewhere.
#include "core/kernels/attention_cuda.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/attention_cudnn.h"
#include "core/kernels/attention_sm90.h"
#include "core/kernels/cost.h"
#include "core/kernels/cuda_kernels.h"
#include "core/kernels/gemm_cuda.h"
#include "core/kernels/timing_cuda.h"
#include "core/ops/fused.h"

namespace strata {
namespace {

using Refs = std::span<const TensorRef>;
// `out` is empty where only sizes are asked for.
using Describe = AttentionCall (*)(const Op&, Refs in, Refs out);

AttentionCall Sizes(const TensorRef& q, const TensorRef& k, AttentionMask mask) {
  AttentionCall c;
  c.dtype = q.dtype;
  c.mask = mask;
  c.b = q.shape[0], c.s = q.shape[1], c.hq = q.shape[2], c.d = q.shape[3];
  c.t = k.shape[1], c.hk = k.shape[2];
  c.group = q.global[2] / k.global[2], c.first_q = q.origin[2], c.first_k = k.origin[2];
  c.q_row = c.hq * c.d, c.kv_row = c.hk * c.d;
  c.by_index = mask == AttentionMask::kFull;
  c.q = q.data, c.k = k.data;
  return c;
}

// Operands `first` and `first` + 1 are the positions, the one after, where it is there, the starts.
void SetPositions(AttentionCall& c, Refs in, size_t first) {
  c.pos_q = in[first].as<const int32_t>(), c.pos_k = in[first + 1].as<const int32_t>();
  if (in.size() > first + 2) {
    c.starts = in[first + 2].as<const int32_t>();
    c.documents = true;
    c.by_index = false;
  }
}

AttentionCall Separate(const Op& op, Refs in, Refs out) {  // q, k, v, positions
  AttentionCall c = Sizes(in[0], in[1], AttentionMaskOf(op));
  c.v = in[2].data;
  SetPositions(c, in, 3);
  if (!out.empty()) c.o = out[0].data, c.lse = out[1].as<float>();
  return c;
}

AttentionCall SeparateBwd(const Op& op, Refs in, Refs out) {  // do, q, k, v, o, lse, positions
  AttentionCall c = Sizes(in[1], in[2], AttentionMaskOf(op));
  c.d_o = in[0].data, c.v = in[3].data, c.o = in[4].data, c.lse = in[5].as<float>();
  SetPositions(c, in, 6);
  if (!out.empty()) c.dq = out[0].data, c.dk = out[1].data, c.dv = out[2].data;
  return c;
}

// The local part of a packed q | k | v. Starts are operand number `starts`, where it is there.
AttentionCall PackedSizes(const Op& op, const TensorRef& qkv, const TensorRef& positions, Refs in, size_t starts) {
  const FusedAttributes& f = FusedAttributesOf(op);
  AttentionCall c;
  c.dtype = qkv.dtype;
  c.mask = f.mask;
  c.group = f.group;
  c.b = qkv.shape[0], c.s = c.t = qkv.shape[1], c.d = qkv.shape[3];
  c.hk = qkv.shape[2] / (f.group + 2), c.hq = c.hk * f.group;
  c.q_row = c.kv_row = qkv.shape[2] * c.d;
  c.by_index = true;
  c.pos_q = c.pos_k = positions.as<const int32_t>();
  if (in.size() > starts) {
    c.starts = in[starts].as<const int32_t>();
    c.documents = true;
  }
  return c;
}

struct Parts {
  void *q, *k, *v;
};
Parts PartsOf(const AttentionCall& c, const TensorRef& qkv) {
  if (qkv.data == nullptr) return {};
  std::byte* const q = qkv.as<std::byte>();
  std::byte* const k = q + c.hq * c.d * SizeOf(c.dtype);
  return {q, k, k + c.hk * c.d * SizeOf(c.dtype)};
}

AttentionCall Packed(const Op& op, Refs in, Refs out) {  // qkv, positions(, starts)
  AttentionCall c = PackedSizes(op, in[0], in[1], in, 2);
  const Parts p = PartsOf(c, in[0]);
  c.q = p.q, c.k = p.k, c.v = p.v;
  if (!out.empty()) c.o = out[0].data, c.lse = out[1].as<float>();
  return c;
}

template <size_t kStarts>
AttentionCall PackedGradient(const Op& op, Refs in, Refs out) {  // do, qkv, o, lse, positions, ...(, starts)
  AttentionCall c = PackedSizes(op, in[1], in[4], in, kStarts);
  const Parts p = PartsOf(c, in[1]);
  c.q = p.q, c.k = p.k, c.v = p.v;
  c.d_o = in[0].data, c.o = in[2].data, c.lse = in[3].as<float>();
  if (!out.empty()) {
    const Parts d = PartsOf(c, out[0]);
    c.dq = d.q, c.dk = d.k, c.dv = d.v;
  }
  return c;
}

AttentionCall PackedBwd(const Op& op, Refs in, Refs out) { return PackedGradient<5>(op, in, out); }

AttentionCall RopeBwd(const Op& op, Refs in, Refs out) {  // do, qkv, o, lse, positions, positions of the rope(, starts)
  AttentionCall c = PackedGradient<6>(op, in, out);
  c.turn = {FusedAttributesOf(op).rope, in[5].as<const int32_t>(), in[5].shape.elements(), c.d / 2, nullptr};
  return c;
}

// Workspace of the rotations, before all else.
int64_t TurnBytes(const AttentionCall& c) { return RopeTableBytes(c.turn.count, c.d); }

// For kernels that do not turn what they make.
absl::Status TurnBack(const AttentionCall& c, cudaStream_t stream) {
  if (c.turn.count == 0) return absl::OkStatus();
  return TurnHeads(c.turn, {c.dtype, c.b * c.s, c.q_row / c.d, c.hq + c.hk, c.dq, c.dq}, stream);
}

AttentionShape ShapeOf(const AttentionCall& c, AttentionPass pass) {
  return {c.b, c.hq, c.hk, c.s, c.t, c.d, c.q_row, c.kv_row, c.mask, pass, c.dtype, c.documents, c.turn.count > 0};
}

// cuDNN's deterministic backward pass (dq without the float32 sums) came out wrong on 9.19 in bf16: where bits must repeat, the
// plain kernels do it.
bool SuitsCudnn(const AttentionCall& c, const AttentionShape& shape, Determinism determinism) {
  if (shape.pass == AttentionPass::kBackward && determinism == Determinism::kBitExact) return false;
  return c.by_index && c.hq == c.hk * c.group && c.first_q == c.first_k * c.group && CheckAttentionShape(shape).ok();
}

absl::Status Check(const AttentionCall& c) {
  if (c.d > kMaxAttentionHeadDim) {
    return absl::InvalidArgumentError(
        absl::StrFormat("attention on the GPU needs a head dim up to %d, not %d", kMaxAttentionHeadDim, c.d));
  }
  if (c.first_q / c.group < c.first_k || (c.first_q + c.hq - 1) / c.group >= c.first_k + c.hk) {
    return absl::InternalError("attention: the kv heads of some local query heads are on another rank");
  }
  return absl::OkStatus();
}

// What documents are taken to be when kernels are timed, in tokens.
constexpr int64_t kTypicalDocument = 512;
constexpr int kSm90Major = 9;

// One op's kernel: how it reads its operands, its pass, and how it runs.
template <Describe kDescribe, AttentionPass kPass, Determinism kDeterminism>
struct AttentionKernel {
  // Enough for whatever is chosen, on any GPU.
  static int64_t Workspace(const Op& op, Refs in) {
    const AttentionCall c = kDescribe(op, in, {});
    const AttentionShape shape = ShapeOf(c, kPass);
    int64_t bytes = kPass == AttentionPass::kForward ? 0 : c.b * c.s * c.hq * static_cast<int64_t>(sizeof(float));
    if (SuitsCudnn(c, shape, kDeterminism)) bytes = std::max(bytes, AttentionWorkspaceOf(shape).total);
    if (Sm90AttentionTakes(c, kSm90Major)) {
      bytes = std::max(bytes, kPass == AttentionPass::kForward ? Sm90AttentionForwardWorkspace(c)
                                                               : Sm90AttentionBackwardWorkspace(c, kDeterminism));
    }
    return TurnBytes(c) + bytes;
  }

  // With the table of rotations in the workspace, which begins behind it then.
  static AttentionCall Described(KernelArgs& a) {
    AttentionCall c = kDescribe(a.op, a.in, a.out);
    c.turn.table = reinterpret_cast<float2*>(a.workspace.data());
    a.workspace = a.workspace.subspan(TurnBytes(c));
    return c;
  }

  static AttentionOperands OperandsOf(const AttentionCall& c, const KernelArgs& a) {
    return {c.q, c.k, c.v, c.o, c.lse, c.d_o, c.dq, c.dk, c.dv, a.workspace, a.stream.native};
  }

  static Cost CostOf(const Op& op, Refs in, Refs out) {
    std::vector<TensorSpec> specs;
    for (const TensorRef& t : in) specs.push_back({t.dtype, t.shape, {}});
    return {op.Flops(specs), StreamingCost(op, in, out).bytes};
  }

  // Launches the plan of the shape; where there are documents, after finding the first key of each query.
  static absl::Status RunCudnn(AttentionPlans& plans, const AttentionShape& shape, const AttentionCall& c,
                               const KernelArgs& a) {
    const AttentionOperands operands = OperandsOf(c, a);
    if (c.documents) RETURN_IF_ERROR(FirstKeys(c, FirstKeysIn(shape, operands), StreamOf(a)));
    RETURN_IF_ERROR(plans.Run(shape, operands));
    return TurnBack(c, StreamOf(a));
  }

  static absl::Status Prepare(const KernelArgs& args) {
    KernelArgs a = args;
    const AttentionCall c = Described(a);
    RETURN_IF_ERROR(Check(c));
    const AttentionShape shape = ShapeOf(c, kPass);
    CudaContext& context = CudaContextOf(a);
    if (context.attention == nullptr) context.attention = std::make_shared<AttentionPlans>(context.properties.name);
    AttentionPlans& plans = *context.attention;
    if (plans.Chosen(shape)) return absl::OkStatus();
    const bool sm90 = Sm90AttentionTakes(c, context.properties.major), fixed = kDeterminism == Determinism::kBitExact;
    std::vector<Candidate> candidates = {{sm90 ? "our Hopper kernels" : "our plain kernels", By::kOurs}};
    const std::string* const fastest = fixed ? nullptr : plans.Fastest(shape);
    if (fastest != nullptr && *fastest == candidates[0].name) return TakeFastest(plans, shape, c, a, candidates);
    bool cudnn = SuitsCudnn(c, shape, kDeterminism) && !(fixed && sm90);
    if (cudnn) {
      RETURN_IF_ERROR(Fill(c, a));
      if (c.documents) RETURN_IF_ERROR(FirstKeys(c, FirstKeysIn(shape, OperandsOf(c, a)), StreamOf(a)));
      const absl::Status s = plans.Prepare(shape, OperandsOf(c, a), kDeterminism);
      cudnn = !absl::IsFailedPrecondition(s);  // without cuDNN or an engine
      if (cudnn) RETURN_IF_ERROR(s);
    }
    if (cudnn) {
      // It computes what lies between documents, and masks it; the plain kernels pass over it.
      const bool others = !fixed && fastest == nullptr && (sm90 || (c.documents && c.s > kTypicalDocument));
      if (!others) candidates.clear();
      candidates.push_back({"cuDNN", By::kCudnn});
    }
    return TakeFastest(plans, shape, c, a, candidates);
  }

  enum class By { kOurs, kCudnn };
  struct Candidate {
    const char* name;
    By by;
  };
  static absl::Status TakeFastest(AttentionPlans& plans, const AttentionShape& shape, const AttentionCall& c,
                                  const KernelArgs& a, const std::vector<Candidate>& candidates) {
    size_t best = 0;
    std::string why;
    if (candidates.size() > 1) {
      Launches launches;
      for (const Candidate& x : candidates) {
        launches.emplace_back([&] { return x.by == By::kOurs ? RunOwn(c, a) : RunCudnn(plans, shape, c, a); });
      }
      ASSIGN_OR_RETURN(const std::vector<double> seconds, Alone(StreamOf(a), launches));
      best = std::min_element(seconds.begin(), seconds.end()) - seconds.begin();
      for (size_t i = 0; i < seconds.size(); ++i) {
        why += absl::StrFormat("%s %s %.3f ms", i == 0 ? ":" : ",", candidates[i].name, seconds[i] * 1e3);
      }
      plans.SetFastest(shape, candidates[best].name);
    }
    if (candidates[best].by == By::kOurs) plans.Leave(shape);
    plans.Choose(shape, candidates[best].name + why);
    return absl::OkStatus();
  }

  static absl::Status Fill(const AttentionCall& c, const KernelArgs& a) {
    for (const TensorRef& t : a.in) {
      if (IsFloating(t.dtype)) RETURN_IF_ERROR(FillRandom(t.data, t.dtype, t.shape.elements(), 1, StreamOf(a)));
    }
    return c.documents ? FillDocuments(c, kTypicalDocument, StreamOf(a)) : absl::OkStatus();
  }

  // By our kernels for Hopper or by those for every GPU.
  static absl::Status RunOwn(AttentionCall c, const KernelArgs& a) {
    constexpr bool kForward = kPass == AttentionPass::kForward;
    if (Sm90AttentionTakes(c, CudaContextOf(a).properties.major)) {
      if (kForward) return Sm90AttentionForward(c, a.workspace.data(), StreamOf(a));
      RETURN_IF_ERROR(Sm90AttentionBackward(c, kDeterminism, a.workspace.data(), StreamOf(a)));
      return Sm90AttentionTurns(c) ? absl::OkStatus() : TurnBack(c, StreamOf(a));
    }
    RETURN_IF_ERROR(Check(c));
    c.row_sum = reinterpret_cast<float*>(a.workspace.data());
    if (kForward) return PlainAttentionForward(c, StreamOf(a));
    RETURN_IF_ERROR(PlainAttentionBackward(c, StreamOf(a)));
    return TurnBack(c, StreamOf(a));
  }

  static absl::Status Run(const KernelArgs& args) {
    KernelArgs a = args;
    const AttentionCall c = Described(a);
    if (c.turn.count > 0) RETURN_IF_ERROR(MakeRopeTable(c.turn, StreamOf(a)));
    const AttentionShape shape = ShapeOf(c, kPass);
    AttentionPlans* plans = CudaContextOf(a).attention.get();
    if (plans != nullptr && SuitsCudnn(c, shape, kDeterminism) && plans->Has(shape)) {
      return RunCudnn(*plans, shape, c, a);
    }
    return RunOwn(c, a);
  }

  static Kernel Make(DType dtype) {
    const bool atomics =  // of the fast kernels' sums of dq
        kPass == AttentionPass::kBackward && kDeterminism == Determinism::kFast && dtype == DType::kBF16;
    return {.run = Run, .workspace = Workspace, .cost = CostOf, .deterministic = !atomics, .prepare = Prepare};
  }
};

template <Determinism kDeterminism>
void Add(KernelTable& table) {
  constexpr AttentionPass kForward = AttentionPass::kForward, kBackward = AttentionPass::kBackward;
  for (const DType t : {DType::kF32, DType::kBF16}) {
    table.Add("attention", t, AttentionKernel<Separate, kForward, kDeterminism>::Make(t));
    table.Add("attention_bwd", t, AttentionKernel<SeparateBwd, kBackward, kDeterminism>::Make(t));
    table.Add("attention_packed", t, AttentionKernel<Packed, kForward, kDeterminism>::Make(t));
    table.Add("attention_packed_bwd", t, AttentionKernel<PackedBwd, kBackward, kDeterminism>::Make(t));
    table.Add("attention_rope_bwd", t, AttentionKernel<RopeBwd, kBackward, kDeterminism>::Make(t));
  }
}

}  // namespace

void AddCudaAttentionKernels(KernelTable& table, Determinism determinism) {
  if (determinism == Determinism::kBitExact) {
    Add<Determinism::kBitExact>(table);
  } else {
    Add<Determinism::kFast>(table);
  }
}

}  // namespace strata
