#include "launch/job/simulation_report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"

namespace strata {
namespace {

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string List(const std::vector<double>& values) {
  return absl::StrCat(
      "[", absl::StrJoin(values, ", ", [](std::string* out, double v) { absl::StrAppendFormat(out, "%.4f", v); }), "]");
}

}  // namespace

double StepComparison::IdleOff() const {
  double most = 0;
  for (size_t r = 0; r < idle.size(); ++r) most = std::max(most, std::abs(idle[r] - measured[r]));
  return most;
}

absl::StatusOr<StepComparison> CompareStep(const JobPipeline& pipeline, const PipelineProfile& profile, Streams streams,
                                           double step_s) {
  ASSIGN_OR_RETURN(const Timeline simulated, Simulate(pipeline.schedule, pipeline.train, profile.durations, streams));
  StepComparison c{.measured_s = step_s, .simulated_s = simulated.makespan(), .idle = IdleShares(simulated)};
  std::vector<double> lengths;
  std::vector<std::vector<double>> idle(pipeline.schedule.ranks);
  for (const Timeline& step : profile.steps) {
    lengths.push_back(step.makespan());
    const std::vector<double> shares = IdleShares(step);
    for (size_t r = 0; r < idle.size(); ++r) idle[r].push_back(shares[r]);
  }
  c.profiled_s = Median(std::move(lengths));
  for (std::vector<double>& rank : idle) c.measured.push_back(Median(std::move(rank)));
  return c;
}

std::string ComparisonTable(const JobPipeline& pipeline, const PipelineProfile& profile, const StepComparison& c) {
  std::string text = absl::StrFormat("measured chunks of %s, milliseconds: medians of %d steps\n  %-6s",  //
                                     pipeline.schedule.name, profile.steps.size(), "stage");
  for (const char* column : {"F", "B", "I", "W", "reduce", "update"}) absl::StrAppendFormat(&text, " %9s", column);
  for (size_t s = 0; s < profile.durations.stages.size(); ++s) {
    const StageDurations::Stage& d = profile.durations.stages[s];
    absl::StrAppendFormat(&text, "\n  %-6d", s);
    for (const double seconds : {d.forward, d.B(), d.input_grad, d.weight_grad, d.reduce, d.update}) {
      absl::StrAppendFormat(&text, " %9.3f", 1e3 * seconds);
    }
  }
  text += "\n";
  for (size_t e = 0; e < profile.durations.edges.size(); ++e) {
    const Edge& edge = pipeline.train.edges[e];
    if (edge.from == edge.to) continue;
    absl::StrAppendFormat(&text, "  %s of stage %d: %.3f\n", pipeline.train.channels[pipeline.train.channel_of[e]],
                          edge.stage, 1e3 * profile.durations.edges[e]);
  }
  absl::StrAppendFormat(&text, "step: %.3f measured (%.3f profiled), %.3f simulated, %+.2f%%\n", 1e3 * c.measured_s,
                        1e3 * c.profiled_s, 1e3 * c.simulated_s, 100 * c.Off());
  for (size_t r = 0; r < c.idle.size(); ++r) {
    absl::StrAppendFormat(&text, "  pipeline rank %d idle: %.2f%% measured, %.2f%% simulated, %+.2f points\n", r,
                          100 * c.measured[r], 100 * c.idle[r], 100 * (c.idle[r] - c.measured[r]));
  }
  return text;
}

std::string ComparisonJson(const StepComparison& c) {
  return absl::StrFormat(
      "\"simulated_s\": %.6f, \"profiled_s\": %.6f, \"simulated_off\": %.4f, \"pipeline_idle\": %s, "
      "\"simulated_idle\": "
      "%s, \"idle_off\": %.4f, ",
      c.simulated_s, c.profiled_s, c.Off(), List(c.measured), List(c.idle), c.IdleOff());
}

std::string DurationsFile(const PipelineProfile& profile, double boundary_bytes) {
  std::vector<double> transfers;
  for (const double seconds : profile.durations.edges) {
    if (seconds > 0) transfers.push_back(seconds);
  }
  std::string text = "# seconds, measured\n";
  if (!transfers.empty()) {
    absl::StrAppendFormat(&text, "# transfers: --link-us 0 --link-gbps %.6g\n",
                          boundary_bytes / Median(std::move(transfers)) / 1e9);
  }
  return text + PrintDurations(profile.durations.stages);
}

}  // namespace strata
