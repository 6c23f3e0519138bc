#include "core/kernels/gemm_plan.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/env.h"
#include "core/kernels/gemm_sm90.h"

namespace strata {
namespace {

cudaDataType_t TypeOf(DType t) { return t == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

// What cuBLASLt does with results, without and with a bias.
cublasLtEpilogue_t EpilogueOf(const GemmShape& s) {
  if (s.fusion == GemmFusion::kGelu) return s.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  if (s.fusion == GemmFusion::kGeluDx) return CUBLASLT_EPILOGUE_DGELU;
  return s.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

}  // namespace

std::string KeyOf(const GemmShape& s) {
  constexpr const char* kFusions[] = {"", "swiglu", "swiglu_dx", "gelu", "gelu_dx", "rope", "gelu_dx_sums", "squares"};
  return absl::StrFormat("%d,%d,%d,%d%d%s%s%s,%s,%s,%d%s", s.m, s.n, s.k, s.transpose_a, s.transpose_b,
                         s.bias ? "b" : "", kFusions[static_cast<int>(s.fusion)],
                         s.head_dim > 0 ? absl::StrCat(s.head_dim) : "", Name(s.in), Name(s.out), s.align,
                         s.ldd > 0 ? absl::StrFormat(",%d", s.ldd) : "");
}

GemmPlans::GemmPlans() : library_(std::make_unique<Library>()) {}

GemmPlans::~GemmPlans() {
  plans_.clear();
  if (handle_ != nullptr) library_->Destroy(handle_);
}

absl::Status GemmPlans::Check(cublasStatus_t status, const char* call) const {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrFormat("%s: %s", call, library_->StatusString(status)));
}

absl::StatusOr<std::shared_ptr<GemmPlans>> GemmPlans::Open(const CudaContext& context) {
  std::shared_ptr<GemmPlans> plans(new GemmPlans);
  RETURN_IF_ERROR(plans->library_->Load());
  const size_t version = plans->library_->GetVersion();  // 130002
  plans->version_ = absl::StrFormat("%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
  RETURN_IF_ERROR(plans->Check(plans->library_->Create(&plans->handle_), "cublasLtCreate"));
  plans->own_ = std::make_unique<Sm90Gemm>(context);
  plans->cache_ = ChoiceCache(Env::Posix(), "gemm", context.properties.name,
                              absl::StrFormat("cublaslt-%s-sm90-%d", plans->version_, kSm90Generation));
  return plans;
}

absl::StatusOr<std::unique_ptr<GemmPlans::Plan>> GemmPlans::MakePlan(const GemmShape& s) const {
  auto plan = std::make_unique<Plan>(*library_);
  RETURN_IF_ERROR(
      Check(library_->DescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate"));
  const cublasOperation_t a = s.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, b = s.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  RETURN_IF_ERROR(Check(library_->DescSet(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof(a)), "TRANSA"));
  RETURN_IF_ERROR(Check(library_->DescSet(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof(b)), "TRANSB"));
  plan->fusion = s.fusion;
  const cublasLtEpilogue_t epilogue = EpilogueOf(s);
  RETURN_IF_ERROR(Check(library_->DescSet(plan->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)),
                        "EPILOGUE"));
  if (IsEpilogue(s.fusion)) {
    RETURN_IF_ERROR(
        Check(library_->DescSet(plan->operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &s.n, sizeof(s.n)), "AUX_LD"));
  }
  const auto layout = [&](cublasLtMatrixLayout_t* l, DType t, int64_t rows, int64_t columns, int64_t pitch) {
    return Check(
        library_->LayoutCreate(l, TypeOf(t), static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), pitch),
        "cublasLtMatrixLayoutCreate");
  };
  const int64_t b_rows = s.transpose_b ? s.k : s.n, a_rows = s.transpose_a ? s.m : s.k;
  RETURN_IF_ERROR(layout(&plan->first, s.in, b_rows, s.transpose_b ? s.n : s.k, b_rows));
  RETURN_IF_ERROR(layout(&plan->second, s.in, a_rows, s.transpose_a ? s.k : s.m, a_rows));
  RETURN_IF_ERROR(layout(&plan->result, s.out, s.n, s.m, s.pitch()));
  return plan;
}

// The heuristic looks at the address of an epilogue's other matrix too.
absl::Status GemmPlans::Bind(Plan& plan, const Operands& o) const {
  const auto set = [&](cublasLtMatmulDescAttributes_t what, const void* p, const char* name) {
    return p == nullptr ? absl::OkStatus() : Check(library_->DescSet(plan.operation, what, &p, sizeof(p)), name);
  };
  const void* aux = plan.fusion == GemmFusion::kGelu ? o.d : o.pre;
  RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, o.bias, "BIAS_POINTER"));
  return IsEpilogue(plan.fusion) ? set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux, "AUX_POINTER")
                                 : absl::OkStatus();
}

absl::Status GemmPlans::Launch(Plan& plan, const Operands& o, const cublasLtMatmulAlgo_t& algorithm) const {
  const float one = 1;
  RETURN_IF_ERROR(Bind(plan, o));
  void* const d = plan.fusion == GemmFusion::kGelu ? o.h : o.d;
  return Check(library_->Matmul(handle_, plan.operation, &one, o.b, plan.first, o.a, plan.second, &o.beta,
                                o.c != nullptr ? o.c : d, plan.result, d, plan.result, &algorithm, o.workspace.data(),
                                o.workspace.size(), o.stream),
               "cublasLtMatmul");
}

absl::Status GemmPlans::FillOperands(const GemmShape& s, const Operands& o) const {
  RETURN_IF_ERROR(FillRandom(const_cast<void*>(o.a), s.in, s.m * s.k, 1, o.stream));
  RETURN_IF_ERROR(FillRandom(const_cast<void*>(o.b), s.in, s.k * s.n, 2, o.stream));
  if (o.gate_up != nullptr) {
    RETURN_IF_ERROR(FillRandom(const_cast<void*>(o.gate_up), s.in, 2 * s.m * s.n, 4, o.stream));
  }
  if (o.pre != nullptr) RETURN_IF_ERROR(FillRandom(const_cast<void*>(o.pre), s.in, s.m * s.n, 4, o.stream));
  return FillRandom(o.d, s.out, (s.m - 1) * s.pitch() + s.n, 3, o.stream);
}

absl::Status GemmPlans::Prepare(const GemmShape& shape, const Operands& o, Search search) {
  if (plans_.contains(shape)) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::unique_ptr<Plan> plan, MakePlan(shape));
  if (IsEpilogue(shape.fusion)) RETURN_IF_ERROR(Bind(*plan, o));
  const std::string key = KeyOf(shape) + (o.beta != 0 ? ",adds" : "");  // what adds may be another's to do best
  if (search == Search::kFirst) {
    RETURN_IF_ERROR(Choose(shape, *plan, o, search));
    plans_[shape] = std::move(plan);
    return absl::OkStatus();
  }
  // A line that does not parse, or an algorithm that cuBLASLt refuses, is timed anew.
  if (const std::string* known = cache_.Find(key); known != nullptr) {
    const absl::StatusOr<Sm90Config> own = Sm90Config::Parse(*known);
    if (own.ok() && own_->Runs(shape, o)) {
      plan->own = *own;
      plans_[shape] = std::move(plan);
      return absl::OkStatus();
    }
    const std::string bytes = absl::HexStringToBytes(*known);
    cublasLtMatmulHeuristicResult_t result{};
    if (bytes.size() == sizeof(plan->algorithm)) {
      std::memcpy(&plan->algorithm, bytes.data(), bytes.size());
      const cublasStatus_t ok = library_->AlgoCheck(handle_, plan->operation, plan->first, plan->second, plan->result,
                                                    plan->result, &plan->algorithm, &result);
      if (ok == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= o.workspace.size()) {
        plans_[shape] = std::move(plan);
        return absl::OkStatus();
      }
    }
  }
  RETURN_IF_ERROR(FillOperands(shape, o));
  RETURN_IF_ERROR(Choose(shape, *plan, o, search));
  cache_.Put(key, plan->own ? plan->own->Name()
                            : absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(&plan->algorithm),
                                                                       sizeof(plan->algorithm))));
  plans_[shape] = std::move(plan);
  return absl::OkStatus();
}

absl::Status GemmPlans::Run(const GemmShape& shape, const Operands& operands) {
  const auto it = plans_.find(shape);
  if (it == plans_.end()) return absl::InternalError("a matrix product that was not prepared: " + KeyOf(shape));
  if (it->second->own) return own_->Run(shape, operands, *it->second->own);
  return Launch(*it->second, operands, it->second->algorithm);
}

absl::Status GemmPlans::PrepareFused(const GemmShape& shape, const Operands& o, Search search,
                                     const std::function<absl::Status()>& apart) {
  if (search == Search::kFirst || plans_.contains(shape) || apart_.contains(shape)) return absl::OkStatus();
  if (const std::string* known = cache_.Find(KeyOf(shape)); known != nullptr && *known == kApart) {
    apart_[shape] = "";
    return absl::OkStatus();
  }
  return IsEpilogue(shape.fusion) ? ChooseEpilogue(shape, o, apart) : ChooseOwn(shape, o, apart);
}

bool GemmPlans::Fuses(const GemmShape& shape) const {
  return shape.fusion != GemmFusion::kNone && plans_.contains(shape);
}

std::string GemmPlans::Choices() const {
  const auto line = [](const GemmShape& s, const std::optional<Sm90Config>& own, const char* otherwise,
                       const std::string& why) {
    constexpr const char* kFusions[] = {"",
                                        ", swiglu",
                                        ", gradient of swiglu",
                                        ", gelu",
                                        ", gradient of gelu",
                                        ", rope",
                                        ", gradient of gelu, and its sums",
                                        ", and its squares"};
    return absl::StrFormat("product m %d, n %d, k %d, %s %s, %s to %s%s: %s%s\n", s.m, s.n, s.k,
                           s.transpose_a ? "A^T" : "A", s.transpose_b ? "B^T" : "B", Name(s.in), Name(s.out),
                           kFusions[static_cast<int>(s.fusion)], own ? "ours (" + own->Name() + ")" : otherwise, why);
  };
  std::string text;
  for (const auto& [shape, plan] : plans_) text += line(shape, plan->own, "cuBLASLt", plan->why);
  for (const auto& [shape, why] : apart_) text += line(shape, std::nullopt, "in two kernels", why);
  return text;
}

}  // namespace strata
