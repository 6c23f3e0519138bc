#include "launch/job/memory_limit.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/job/job_memory.h"

namespace strata {
namespace {

struct Change {
  std::string text;
  JobConfig config;
};

// Changes that keep batch and result, in order of what they cost in time.
std::vector<Change> ChangesOf(const JobConfig& c) {
  std::vector<Change> changes;
  const auto add = [&](const std::string& text, const std::function<void(JobConfig&)>& change) {
    change(changes.emplace_back(Change{text, c}).config);
  };
  for (int64_t stage = c.parallel.zero.stage + 1; c.parallel.dp > 1 && stage <= 3; ++stage) {
    add(absl::StrFormat("parallel.zero = %d", stage), [&](JobConfig& x) { x.parallel.zero.stage = stage; });
  }
  const bool shares = c.parallel.tp > 1 && c.model.seq % c.parallel.tp == 0;
  if (shares && !c.parallel.sequence_parallel) {
    add("parallel.sequence_parallel = true", [](JobConfig& x) { x.parallel.sequence_parallel = true; });
  }
  if (shares && c.parallel.sequence_parallel && c.parallel.keep_gathered) {
    add("parallel.keep_gathered = false", [](JobConfig& x) { x.parallel.keep_gathered = false; });
  }
  for (const Recompute level : {Recompute::kSelective, Recompute::kBlock}) {
    if (level < c.memory.recompute || (level == c.memory.recompute && c.memory.recompute_blocks == 0)) continue;
    add(absl::StrFormat("memory.recompute = \"%s\"", kRecomputeNames[static_cast<size_t>(level)]), [&](JobConfig& x) {
      x.memory.recompute = level;
      x.memory.recompute_blocks = 0;
    });
  }
  for (int64_t micro = c.batch.micro; micro > 1;) {
    micro = micro % 2 == 0 ? micro / 2 : 1;
    const int64_t accumulate = c.batch.accumulate * (c.batch.micro / micro);
    add(absl::StrFormat("batch.micro = %d, batch.accumulate = %d", micro, accumulate), [&](JobConfig& x) {
      x.batch.micro = micro;
      x.batch.accumulate = accumulate;
    });
  }
  return changes;
}

// One line for each change that fits; of the smaller micro-batches the largest.
std::string WhatFits(const JobConfig& config, const KernelTable& kernels) {
  std::string text;
  bool micro = false;
  for (Change& change : ChangesOf(config)) {
    const bool is_micro = change.config.batch.micro != config.batch.micro;
    if (is_micro && micro) continue;
    change.config.memory.limit.clear();
    if (change.config.memory.recompute == Recompute::kAuto) change.config.memory.recompute = Recompute::kBlock;
    const absl::StatusOr<Job> job = CompileTraining(change.config, kernels);
    if (!job.ok()) continue;
    const absl::StatusOr<Plan> plan = PlanFullest(*job, kernels);
    if (!plan.ok() || DeviceBytes(*plan) > config.memory.limit_bytes()) continue;
    micro |= is_micro;
    absl::StrAppendFormat(&text, "  %-40s %s\n", change.text, HumanBytes(static_cast<double>(DeviceBytes(*plan))));
  }
  if (!text.empty()) return "each of these fits:\n" + text;
  return "no change of one key fits; several together may, or more ranks (parallel.tp), or a smaller model\n";
}

absl::Status OverLimit(const JobConfig& config, const Plan& plan, const KernelTable& kernels) {
  return absl::ResourceExhaustedError(
      absl::StrFormat("memory.limit = %s: the plan of a rank needs %s%s\n%s%s", config.memory.limit,
                      HumanBytes(static_cast<double>(DeviceBytes(plan))),
                      config.memory.recompute == Recompute::kAuto ? ", with every block recomputed" : "", Print(plan),
                      WhatFits(config, kernels)));
}

}  // namespace

std::string ToString(const RecomputeBlocks& blocks, int64_t layers) {
  const auto part = [&](const char* level, int n, const char* which) {
    return n == layers ? absl::StrFormat("%s in every block", level)
                       : absl::StrFormat("%s in the %s %d of %d blocks", level, which, n, layers);
  };
  if (blocks.whole == 0 && blocks.selective == 0) return "none";
  if (blocks.selective == 0) return part("block", blocks.whole, "first");
  if (blocks.whole == 0) return part("selective", blocks.selective, "first");
  return absl::StrFormat("%s, selective in the next %d", part("block", blocks.whole, "first"), blocks.selective);
}

absl::StatusOr<Job> CompileWithinLimit(const JobConfig& config, const KernelTable& kernels,
                                       const CompileWith& compile) {
  const int layers = static_cast<int>(config.model.layers);
  const int64_t limit = config.memory.limit_bytes();
  // Level n: the first n blocks selectively; above `layers`, the first n - layers whole.
  const auto blocks = [&](int n) {
    return n <= layers ? RecomputeBlocks{0, n} : RecomputeBlocks{n - layers, 2 * layers - n};
  };
  int low = 0, high = 2 * layers;  // the least level that fits is in [low, high]
  std::optional<Job> fits;
  for (int n = 0; low < high || !fits;) {
    ASSIGN_OR_RETURN(Job job, compile(blocks(n)));
    ASSIGN_OR_RETURN(const Plan plan, PlanFullest(job, kernels));
    if (DeviceBytes(plan) <= limit) {
      high = n;
      fits = std::move(job);
    } else if (n == 2 * layers) {
      return OverLimit(config, plan, kernels);
    } else {
      low = n + 1;
    }
    n = (low + high) / 2;
  }
  return *std::move(fits);
}

absl::Status CheckLimit(const Job& job, std::span<const Plan> plans, const KernelTable& kernels) {
  const int64_t limit = job.config.memory.limit_bytes();
  if (limit == 0) return absl::OkStatus();
  for (const Plan& plan : plans) {
    if (DeviceBytes(plan) > limit) return OverLimit(job.config, plan, kernels);
  }
  return absl::OkStatus();
}

}  // namespace strata
