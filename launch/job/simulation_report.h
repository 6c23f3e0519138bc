#pragma once
// A measured pipeline step beside the simulator's, which is fed with the measured chunks: `strata bench step --simulate`.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "launch/job/pipeline_profile.h"

namespace strata {

struct StepComparison {
  double measured_s = 0, simulated_s = 0;
  double profiled_s = 0;               // of the steps that were timed piece by piece: the median of their lengths
  std::vector<double> measured, idle;  // [pipeline rank]: part of the step without work: of a profiled one, simulated
  // (simulated - measured) / measured; the largest difference of a rank's idle parts, by its size.
  double Off() const { return simulated_s / measured_s - 1; }
  double IdleOff() const;
};

// step_s: of a step that was not profiled.
absl::StatusOr<StepComparison> CompareStep(const JobPipeline& pipeline, const PipelineProfile& profile, Streams streams,
                                           double step_s);

// Chunks by stage, transfers by edge, both steps, idle parts by rank.
std::string ComparisonTable(const JobPipeline& pipeline, const PipelineProfile& profile, const StepComparison& c);
// Members of a JSON object, each followed by ", ".
std::string ComparisonJson(const StepComparison& c);

// What `strata plan --schedule --durations` reads; a comment says which --link options stand for the transfers.
// boundary_bytes: of a message.
std::string DurationsFile(const PipelineProfile& profile, double boundary_bytes);

}  // namespace strata
