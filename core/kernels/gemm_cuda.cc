#include "core/kernels/gemm_cuda.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/dynamic_library.h"
#include "core/base/env.h"
#include "core/base/status.h"
#include "core/kernels/gemm_sm90.h"

namespace strata {

struct GemmPlans::Library {
  decltype(cublasLtCreate)* Create;
  decltype(cublasLtDestroy)* Destroy;
  decltype(cublasLtGetVersion)* GetVersion;
  decltype(cublasLtGetStatusString)* StatusString;
  decltype(cublasLtMatmul)* Matmul;
  decltype(cublasLtMatmulAlgoCheck)* AlgoCheck;
  decltype(cublasLtMatmulAlgoGetHeuristic)* Heuristic;
  decltype(cublasLtMatmulDescCreate)* DescCreate;
  decltype(cublasLtMatmulDescDestroy)* DescDestroy;
  decltype(cublasLtMatmulDescSetAttribute)* DescSet;
  decltype(cublasLtMatrixLayoutCreate)* LayoutCreate;
  decltype(cublasLtMatrixLayoutDestroy)* LayoutDestroy;
  decltype(cublasLtMatmulPreferenceCreate)* PreferenceCreate;
  decltype(cublasLtMatmulPreferenceDestroy)* PreferenceDestroy;
  decltype(cublasLtMatmulPreferenceSetAttribute)* PreferenceSet;

  absl::Status Load() {
    const std::string names[] = {"libcublasLt.so.13", "libcublasLt.so"};
    ASSIGN_OR_RETURN(const DynamicLibrary lib, DynamicLibrary::Open(names));
    absl::Status s;
    s.Update(lib.Load("cublasLtCreate", Create));
    s.Update(lib.Load("cublasLtDestroy", Destroy));
    s.Update(lib.Load("cublasLtGetVersion", GetVersion));
    s.Update(lib.Load("cublasLtGetStatusString", StatusString));
    s.Update(lib.Load("cublasLtMatmul", Matmul));
    s.Update(lib.Load("cublasLtMatmulAlgoCheck", AlgoCheck));
    s.Update(lib.Load("cublasLtMatmulAlgoGetHeuristic", Heuristic));
    s.Update(lib.Load("cublasLtMatmulDescCreate", DescCreate));
    s.Update(lib.Load("cublasLtMatmulDescDestroy", DescDestroy));
    s.Update(lib.Load("cublasLtMatmulDescSetAttribute", DescSet));
    s.Update(lib.Load("cublasLtMatrixLayoutCreate", LayoutCreate));
    s.Update(lib.Load("cublasLtMatrixLayoutDestroy", LayoutDestroy));
    s.Update(lib.Load("cublasLtMatmulPreferenceCreate", PreferenceCreate));
    s.Update(lib.Load("cublasLtMatmulPreferenceDestroy", PreferenceDestroy));
    s.Update(lib.Load("cublasLtMatmulPreferenceSetAttribute", PreferenceSet));
    return s;
  }
};

// cuBLASLt is column-major: D^T = op(B)^T op(A)^T, so its first operand is our B.
struct GemmPlans::Plan {
  const Library& library;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  GemmFusion fusion = GemmFusion::kNone;
  cublasLtMatmulAlgo_t algorithm{};
  std::optional<Sm90Config> own;  // instead of the algorithm and all before it
  std::string why;                // what was measured; empty: from the file

  explicit Plan(const Library& l) : library(l) {}
  ~Plan() {
    if (operation != nullptr) library.DescDestroy(operation);
    for (cublasLtMatrixLayout_t l : {first, second, result}) {
      if (l != nullptr) library.LayoutDestroy(l);
    }
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

namespace {

constexpr int kCandidates = 64, kFinalists = 10, kRounds = 2;
constexpr double kRoundSeconds = 0.015;
constexpr char kApart[] = "apart";  // in the file: not fused

cudaDataType_t TypeOf(DType t) { return t == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

std::string KeyOf(const GemmShape& s) {
  constexpr const char* kFusions[] = {"", "swiglu", "swiglu_dx", "gelu", "gelu_dx"};
  return absl::StrFormat("%d,%d,%d,%d%d%s%s,%s,%s,%d%s", s.m, s.n, s.k, s.transpose_a, s.transpose_b, s.bias ? "b" : "",
                         kFusions[static_cast<int>(s.fusion)], Name(s.in), Name(s.out), s.align,
                         s.ldd > 0 ? absl::StrFormat(",%d", s.ldd) : "");
}

// What cuBLASLt does with results, without and with a bias.
bool IsEpilogue(GemmFusion fusion) { return fusion == GemmFusion::kGelu || fusion == GemmFusion::kGeluDx; }
cublasLtEpilogue_t EpilogueOf(const GemmShape& s) {
  if (s.fusion == GemmFusion::kGelu) return s.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  if (s.fusion == GemmFusion::kGeluDx) return CUBLASLT_EPILOGUE_DGELU;
  return s.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

std::string CacheFolder() {
  const char* own = std::getenv("STRATA_CACHE");
  if (own != nullptr && *own != 0) return own;
  const char *xdg = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (xdg != nullptr && *xdg != 0) return std::string(xdg) + "/strata";
  return home != nullptr && *home != 0 ? std::string(home) + "/.cache/strata" : "";
}

// The mean seconds of each of `launches`, which take turns, for as long as finalists do.
absl::StatusOr<std::vector<double>> InTurn(cudaStream_t stream,
                                           const std::vector<std::function<absl::Status()>>& launches) {
  std::vector<double> seconds(launches.size());
  int runs = 2;
  for (int round = 0; round <= kRounds; ++round) {
    for (size_t i = 0; i < launches.size(); ++i) {
      ASSIGN_OR_RETURN(const double t, SecondsOnStream(stream, runs, launches[i]));
      seconds[i] = round == 0 ? 0 : seconds[i] + t / kRounds;
      if (round == 0) runs = static_cast<int>(std::clamp(kRoundSeconds / t, 1.0, 200.0));
    }
  }
  return seconds;
}

}  // namespace

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
  if (const std::string folder = CacheFolder(); !folder.empty()) {
    std::string device = context.properties.name;
    std::replace(device.begin(), device.end(), ' ', '-');
    plans->cache_path_ = absl::StrFormat("%s/gemm-%s-cublaslt-%s.txt", folder, device, plans->version_);
    plans->LoadCache();
  }
  return plans;
}

// One line a shape: its key, and the 64 bytes of cuBLASLt's algorithm in hexadecimal, or the name of a configuration of ours, or "apart". A
// line that does not parse, or an algorithm that cuBLASLt refuses, is timed anew.
void GemmPlans::LoadCache() {
  const absl::StatusOr<std::string> text = ReadText(Env::Posix(), cache_path_);
  if (!text.ok()) return;
  for (absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> entry = absl::StrSplit(line, absl::MaxSplits(' ', 1));
    cache_.insert(entry);
  }
}

void GemmPlans::SaveCache() const {  // a cache: failing to write it costs a search at the next start
  if (cache_path_.empty()) return;
  std::string text;
  for (const auto& [key, value] : cache_) absl::StrAppend(&text, key, " ", value, "\n");
  const absl::Status made = Env::Posix().MakeDirs(cache_path_.substr(0, cache_path_.rfind('/')));
  if (made.ok()) WriteTextAtomically(Env::Posix(), cache_path_, text).IgnoreError();
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

absl::Status GemmPlans::Choose(const GemmShape& s, Plan& plan, const Operands& o, Search search) {
  cublasLtMatmulPreference_t preference = nullptr;
  RETURN_IF_ERROR(Check(library_->PreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate"));
  const uint64_t workspace = o.workspace.size();
  // Sums of split products in an order that never changes.
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  const uint32_t align = static_cast<uint32_t>(s.align);
  absl::Status set;
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
    set.Update(Check(library_->PreferenceSet(preference, what, &value, sizeof(value)),
                     "cublasLtMatmulPreferenceSetAttribute"));
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
  for (const auto what : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    prefer(what, align);
  }
  std::vector<cublasLtMatmulHeuristicResult_t> found(kCandidates);
  int count = 0;
  if (set.ok()) {
    set = Check(library_->Heuristic(handle_, plan.operation, plan.first, plan.second, plan.result, plan.result,
                                    preference, kCandidates, found.data(), &count),
                "cublasLtMatmulAlgoGetHeuristic");
  }
  library_->PreferenceDestroy(preference);
  RETURN_IF_ERROR(set);
  if (count == 0) return absl::FailedPreconditionError("cuBLASLt has no algorithm for " + KeyOf(s));
  for (int i = 0; search == Search::kFirst && i < count; ++i) {
    if (found[i].state != CUBLAS_STATUS_SUCCESS || found[i].workspaceSize > o.workspace.size()) continue;
    plan.algorithm = found[i].algo;
    if (Launch(plan, o, plan.algorithm).ok()) return absl::OkStatus();
  }

  struct Candidate {
    std::optional<Sm90Config> own;
    cublasLtMatmulAlgo_t algorithm{};
    double seconds = 0;
  };
  const auto time = [&](const Candidate& c, int runs) {
    return SecondsOnStream(o.stream, runs,
                           [&] { return c.own ? own_->Run(s, o, *c.own) : Launch(plan, o, c.algorithm); });
  };
  std::vector<Candidate> candidates;
  const auto propose = [&](Candidate c) {
    if (!time(c, 1).ok()) {  // an algorithm that the chip refuses
      cudaGetLastError();
      return;
    }
    const absl::StatusOr<double> t = time(c, 2);
    if (!t.ok()) return;
    c.seconds = *t;
    candidates.push_back(c);
  };
  for (int i = 0; i < count; ++i) {
    if (found[i].state != CUBLAS_STATUS_SUCCESS || found[i].workspaceSize > o.workspace.size()) continue;
    propose({std::nullopt, found[i].algo});
  }
  if (candidates.empty()) return absl::FailedPreconditionError("cuBLASLt runs no algorithm for " + KeyOf(s));
  if (!IsEpilogue(s.fusion) && own_->Runs(s, o)) {
    for (const Sm90Config& config : own_->Configs(s)) propose({config, {}});
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& x, const Candidate& y) { return x.seconds < y.seconds; });
  if (candidates.size() > kFinalists) candidates.resize(kFinalists);
  // The finalists in turn, so that a drifting clock treats all alike, and for so long that the chip is as hot and as slow as
  // in training.
  const int runs = static_cast<int>(std::clamp(kRoundSeconds / candidates[0].seconds, 1.0, 200.0));
  for (Candidate& c : candidates) c.seconds = 0;
  for (int round = 0; round <= kRounds; ++round) {
    for (Candidate& c : candidates) {
      ASSIGN_OR_RETURN(const double t, time(c, runs));
      if (round > 0) c.seconds += t / kRounds;
    }
  }
  const Candidate *own = nullptr, *theirs = nullptr;
  for (const Candidate& c : candidates) {
    const Candidate*& best = c.own ? own : theirs;
    if (best == nullptr || c.seconds < best->seconds) best = &c;
  }
  const Candidate& best = own != nullptr && (theirs == nullptr || own->seconds < theirs->seconds) ? *own : *theirs;
  plan.algorithm = best.algorithm;
  plan.own = best.own;
  plan.why =
      absl::StrCat(own == nullptr ? "" : absl::StrFormat("; ours (%s) %.3f ms", own->own->Name(), 1e3 * own->seconds),
                   theirs == nullptr ? "" : absl::StrFormat("; cuBLASLt %.3f ms", 1e3 * theirs->seconds));
  return absl::OkStatus();
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
  const std::string key = KeyOf(shape);
  if (search == Search::kFirst) {
    RETURN_IF_ERROR(Choose(shape, *plan, o, search));
    plans_[shape] = std::move(plan);
    return absl::OkStatus();
  }
  if (const auto it = cache_.find(key); it != cache_.end()) {
    const absl::StatusOr<Sm90Config> own = Sm90Config::Parse(it->second);
    if (own.ok() && own_->Runs(shape, o)) {
      plan->own = *own;
      plans_[shape] = std::move(plan);
      return absl::OkStatus();
    }
    const std::string bytes = absl::HexStringToBytes(it->second);
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
  cache_[key] = plan->own ? plan->own->Name()
                          : absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(&plan->algorithm),
                                                                     sizeof(plan->algorithm)));
  plans_[shape] = std::move(plan);
  SaveCache();
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
  if (const auto cached = cache_.find(KeyOf(shape)); cached != cache_.end() && cached->second == kApart) {
    apart_[shape] = "";
    return absl::OkStatus();
  }
  return IsEpilogue(shape.fusion) ? ChooseEpilogue(shape, o, apart) : ChooseOwn(shape, o, apart);
}

void GemmPlans::KeepApart(const GemmShape& shape, std::string why) {
  plans_.erase(shape);
  apart_[shape] = std::move(why);
  cache_[KeyOf(shape)] = kApart;
  SaveCache();
}

absl::Status GemmPlans::ChooseOwn(const GemmShape& shape, const Operands& o,
                                  const std::function<absl::Status()>& apart) {
  if (!own_->Runs(shape, o)) return absl::OkStatus();
  const auto keep = [&](const Sm90Config& config, std::string why) {
    auto plan = std::make_unique<Plan>(*library_);
    plan->own = config;
    plan->why = std::move(why);
    plans_[shape] = std::move(plan);
  };
  const std::string key = KeyOf(shape);
  if (const auto cached = cache_.find(key); cached != cache_.end()) {
    if (const absl::StatusOr<Sm90Config> own = Sm90Config::Parse(cached->second); own.ok()) {
      keep(*own, "");
      return absl::OkStatus();
    }
  }
  RETURN_IF_ERROR(FillOperands(shape, o));
  const std::vector<Sm90Config> configs = own_->Configs(shape);
  std::vector<std::function<absl::Status()>> launches = {apart};
  for (const Sm90Config& config : configs) {
    launches.push_back([&, config] { return own_->Run(shape, o, config); });
  }
  ASSIGN_OR_RETURN(const std::vector<double> seconds, InTurn(o.stream, launches));
  const size_t one = std::min_element(seconds.begin() + 1, seconds.end()) - seconds.begin();
  std::string why = absl::StrFormat("; one kernel %.3f ms; two %.3f ms", 1e3 * seconds[one], 1e3 * seconds[0]);
  if (seconds[0] <= seconds[one]) {
    KeepApart(shape, std::move(why));
    return absl::OkStatus();
  }
  keep(configs[one - 1], std::move(why));
  cache_[key] = configs[one - 1].Name();
  SaveCache();
  return absl::OkStatus();
}

absl::Status GemmPlans::ChooseEpilogue(const GemmShape& shape, const Operands& o,
                                       const std::function<absl::Status()>& apart) {
  const bool known = cache_.contains(KeyOf(shape));
  if (!Prepare(shape, o, Search::kTimed).ok()) {  // cuBLASLt does not have it for every shape
    KeepApart(shape, "; cuBLASLt has no other");
    return absl::OkStatus();
  }
  if (known) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<double> seconds, InTurn(o.stream, {apart, [&] { return Run(shape, o); }}));
  std::string why = absl::StrFormat("; one kernel %.3f ms; two %.3f ms", 1e3 * seconds[1], 1e3 * seconds[0]);
  if (seconds[0] <= seconds[1]) {
    KeepApart(shape, std::move(why));
  } else {
    plans_.at(shape)->why = std::move(why);
  }
  return absl::OkStatus();
}

bool GemmPlans::Fuses(const GemmShape& shape) const {
  return shape.fusion != GemmFusion::kNone && plans_.contains(shape);
}

std::string GemmPlans::Choices() const {
  const auto line = [](const GemmShape& s, const std::optional<Sm90Config>& own, const char* otherwise,
                       const std::string& why) {
    constexpr const char* kFusions[] = {"", ", swiglu", ", gradient of swiglu", ", gelu", ", gradient of gelu"};
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
