#pragma once
// Where the time of a step goes, from its timed plan steps; and as a Chrome trace (chrome://tracing, Perfetto).

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "core/exec/executor.h"

namespace strata {

enum class Work : uint8_t { kGemm, kAttention, kMemoryBound, kOptimizer, kCollective };
inline constexpr std::string_view kWorkNames[] = {"gemm", "attention", "memory_bound", "optimizer", "collective"};
Work WorkOf(const Step& step);  // copies are memory-bound

// Steps of one op and shapes, together.
struct ProfileRow {
  Work work = Work::kMemoryBound;
  std::string op, shapes;  // "linear", "bf16[8, 2048, 2048] bf16[2048, 2048]"
  int calls = 0;
  double seconds = 0, flops = 0, bytes = 0;  // of all calls
};
struct ProfileSummary {
  std::array<double, std::size(kWorkNames)> seconds{};  // by Work
  std::vector<ProfileRow> rows;                         // longest first
};
// Time in which a collective runs and nothing computes: what overlap has not hidden. Transfers and waiting for peers count.
double ExposedSeconds(const std::vector<Executor::TimedStep>& steps);
ProfileSummary Summarize(const std::vector<Executor::TimedStep>& steps);

// A line a row: milliseconds, share, calls, TFLOP/s or GB/s, op and shapes. Of one kind of work, or of all.
std::string ProfileTable(const ProfileSummary& summary, const Work* only = nullptr);

// JSON in the Trace Event Format: one complete event a step, on the thread of its stream.
std::string ChromeTrace(const std::vector<Executor::TimedStep>& steps, int rank);

}  // namespace strata
