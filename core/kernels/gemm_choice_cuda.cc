// Which kernel computes a product: by timing, on a chip as hot as in training.
#include <algorithm>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/kernels/gemm_plan.h"
#include "core/kernels/gemm_sm90.h"
#include "core/kernels/timing_cuda.h"

namespace strata {
namespace {

// A cool chip, where energy does not count, proposes finalists of either kind; in turn they are reduced to those that are timed alone.
constexpr int kCandidates = 64, kFinalists = 6, kTimedAlone = 2;

}  // namespace

absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> GemmPlans::Propose(const GemmShape& s, const Plan& plan,
                                                                     const Operands& o) const {
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
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < count; ++i) {
    if (found[i].state != CUBLAS_STATUS_SUCCESS || found[i].workspaceSize > o.workspace.size()) continue;
    algorithms.push_back(found[i].algo);
  }
  if (algorithms.empty()) return absl::FailedPreconditionError("cuBLASLt has no algorithm for " + KeyOf(s));
  return algorithms;
}

absl::Status GemmPlans::Choose(const GemmShape& s, Plan& plan, const Operands& o, Search search) {
  ASSIGN_OR_RETURN(const std::vector<cublasLtMatmulAlgo_t> algorithms, Propose(s, plan, o));
  for (size_t i = 0; search == Search::kFirst && i < algorithms.size(); ++i) {
    plan.algorithm = algorithms[i];
    if (Launch(plan, o, plan.algorithm).ok()) return absl::OkStatus();
  }

  struct Candidate {
    std::optional<Sm90Config> own;
    cublasLtMatmulAlgo_t algorithm{};
    double seconds = 0;
  };
  const auto launch = [&](const Candidate& c) {
    return c.own ? own_->Run(s, o, *c.own) : Launch(plan, o, c.algorithm);
  };
  std::vector<Candidate> candidates;
  const auto propose = [&](Candidate c) {
    const auto run = [&] { return launch(c); };
    if (!SecondsOnStream(o.stream, 1, run).ok()) {  // an algorithm that the chip refuses
      cudaGetLastError();
      return;
    }
    const absl::StatusOr<double> t = SecondsOnStream(o.stream, 2, run);
    if (!t.ok()) return;
    c.seconds = *t;
    candidates.push_back(c);
  };
  for (const cublasLtMatmulAlgo_t& algorithm : algorithms) propose({std::nullopt, algorithm});
  if (candidates.empty()) return absl::FailedPreconditionError("cuBLASLt runs no algorithm for " + KeyOf(s));
  if (own_->Runs(s, o)) {
    for (const Sm90Config& config : own_->Configs(s)) propose({config, {}});
  }
  const auto keep = [&](int of_each_kind) {
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& x, const Candidate& y) { return x.seconds < y.seconds; });
    int kept[] = {0, 0};
    std::erase_if(candidates, [&](const Candidate& c) { return kept[c.own.has_value()]++ >= of_each_kind; });
  };
  const auto time = [&](auto& method) -> absl::Status {
    Launches launches;
    for (const Candidate& c : candidates) launches.emplace_back([&launch, &c] { return launch(c); });
    ASSIGN_OR_RETURN(const std::vector<double> seconds, method(o.stream, launches));
    for (size_t i = 0; i < candidates.size(); ++i) candidates[i].seconds = seconds[i];
    return absl::OkStatus();
  };
  keep(kFinalists);
  RETURN_IF_ERROR(time(InTurn));
  keep(kTimedAlone);
  RETURN_IF_ERROR(time(Alone));
  keep(1);
  plan.algorithm = candidates.front().algorithm;
  plan.own = candidates.front().own;
  for (const Candidate& c : candidates) {
    absl::StrAppendFormat(&plan.why, "; %s %.3f ms", c.own ? "ours (" + c.own->Name() + ")" : "cuBLASLt",
                          1e3 * c.seconds);
  }
  return absl::OkStatus();
}

void GemmPlans::KeepApart(const GemmShape& shape, std::string why) {
  plans_.erase(shape);
  apart_[shape] = std::move(why);
  cache_.Put(KeyOf(shape), kApart);
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
  if (const std::string* known = cache_.Find(key); known != nullptr) {
    if (const absl::StatusOr<Sm90Config> own = Sm90Config::Parse(*known); own.ok()) {
      keep(*own, "");
      return absl::OkStatus();
    }
  }
  RETURN_IF_ERROR(FillOperands(shape, o));
  const std::vector<Sm90Config> configs = own_->Configs(shape);
  Launches launches;
  for (const Sm90Config& config : configs) {
    launches.emplace_back([&, config] { return own_->Run(shape, o, config); });
  }
  ASSIGN_OR_RETURN(const std::vector<double> in_turn, InTurn(o.stream, launches));
  std::vector<size_t> order(configs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t x, size_t y) { return in_turn[x] < in_turn[y]; });
  order.resize(std::min(order.size(), size_t{kTimedAlone}));
  Launches finalists;
  for (const size_t i : order) finalists.push_back(launches[i]);
  finalists.push_back(apart);
  ASSIGN_OR_RETURN(const std::vector<double> alone, Alone(o.stream, finalists));
  const auto one = std::min_element(alone.begin(), alone.end() - 1);
  std::string why = absl::StrFormat("; one kernel %.3f ms; two %.3f ms", 1e3 * *one, 1e3 * alone.back());
  if (alone.back() <= *one) {
    KeepApart(shape, std::move(why));
    return absl::OkStatus();
  }
  const Sm90Config& config = configs[order[one - alone.begin()]];
  keep(config, std::move(why));
  cache_.Put(key, config.Name());
  return absl::OkStatus();
}

absl::Status GemmPlans::ChooseEpilogue(const GemmShape& shape, const Operands& o,
                                       const std::function<absl::Status()>& apart) {
  const bool known = cache_.Find(KeyOf(shape)) != nullptr;
  if (!Prepare(shape, o, Search::kTimed).ok()) {  // cuBLASLt does not have it for every shape
    RETURN_IF_ERROR(ChooseOwn(shape, o, apart));
    if (!Fuses(shape) && !apart_.contains(shape)) KeepApart(shape, "; cuBLASLt has no other");
    return absl::OkStatus();
  }
  if (known) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<double> seconds, Alone(o.stream, {apart, [&] { return Run(shape, o); }}));
  std::string& why = plans_.at(shape)->why;
  absl::StrAppendFormat(&why, "; one kernel %.3f ms; two %.3f ms", 1e3 * seconds[1], 1e3 * seconds[0]);
  if (seconds[0] <= seconds[1]) KeepApart(shape, std::string(why));
  return absl::OkStatus();
}

}  // namespace strata
