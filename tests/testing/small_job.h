#pragma once
// Tiny jobs without files: their config, a table of random rows with uneven masks, and a run of it on thread ranks.

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "launch/config/job_config.h"
#include "launch/job/rank_runner.h"

namespace strata::testing {

// V 32, L 2, E 16, H 4, Hk 2, F 24, S 8, float64, AdamW eps 1e-4; 8 sequences a step whatever dp and accumulation.
JobConfig SmallJob(int64_t dp, int64_t tp, int64_t accumulate);
// The same of another architecture, with dropout 0.2 where it has dropout; 4 heads.
JobConfig SmallJobOf(ModelArch arch, int64_t dp, int64_t tp, int64_t accumulate);

// Random tokens; row i has weight on only some of its positions, a different number for every row, and documents of 4
// tokens on average.
class TableRows final : public RowSource {
 public:
  TableRows(int64_t vocab, uint64_t seed) : vocab_(vocab), seed_(seed) {}
  absl::Status Row(int64_t index, const RowSpans& row) const override;

 private:
  int64_t vocab_;
  uint64_t seed_;
};

struct JobRun {
  std::vector<StepReport> steps;
  double eval_nats = 0;
  int64_t eval_tokens = 0;
  std::map<std::string, std::vector<double>> parameters;  // whole tensors, put together from all ranks
  std::map<std::string, std::vector<bool>> held;          // the elements of them that were found on some rank
  std::map<std::string, int64_t> calls;                   // "dp all-reduce" -> calls of rank 0 in ONE train step
  std::map<std::string, double> bytes;                    // ... -> bytes it sends
};
// Trains on thread ranks on TableRows (by the model's objective), then evaluates 5 rows. Fails if a replicated part of a parameter differs between ranks.
absl::StatusOr<JobRun> RunJob(const JobConfig& config, int steps);

// Opens the device of a rank, on its thread; null: the CPU.
using OpenRankDevice = std::function<absl::StatusOr<std::unique_ptr<Device>>(int rank)>;

class StepTrace;  // tests/testing/step_trace.h

// The same with other rows, and of the steps named, in their order; with other kernels, on other devices; `inspect` sees
// the compiled job. A loss above max_loss skips its update. With a trace, of rank 0, nothing is captured and freed memory is
// poisoned.
absl::StatusOr<JobRun> RunJob(const JobConfig& config, std::span<const int> steps, const RowSource& rows,
                              double max_loss, const KernelTable& kernels = CpuKernels(),
                              const std::function<void(const Job&)>& inspect = nullptr,
                              const OpenRankDevice& open = nullptr, StepTrace* trace = nullptr);

// The same by this process as one rank of `world`; parameters are what it holds. Collective.
absl::StatusOr<JobRun> RunJobRank(const JobConfig& config, int steps, World& world);

}  // namespace strata::testing
