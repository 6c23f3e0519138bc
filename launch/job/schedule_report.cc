#include "launch/job/schedule_report.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/plan/plan.h"
#include "models/pass_flops.h"
#include "parallel/pipeline/balance.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/stage_layout.h"

namespace strata {
namespace {

constexpr int kWide = 4;  // stages a rank, to compare with

PassFlops& operator+=(PassFlops& a, const PassFlops& b) {
  a.forward += b.forward;
  a.input_grad += b.input_grad;
  a.weight_grad += b.weight_grad;
  return a;
}

// In operations of products that take as long. Kernels of attention's backward pass compute the scores again, so five products
// for the four that count as work.
PassFlops InProducts(const PartFlops& part) {
  PassFlops flops = part.products;
  flops += {part.attention.forward / RelativeRate("attention"),
            part.attention.input_grad * 5 / 4 / RelativeRate("attention_bwd"), part.attention.weight_grad};
  return flops;
}

absl::StatusOr<StageLayout> LayoutOf(const JobConfig& c, const Schedule& schedule) {
  const double look_up = 2.0 * static_cast<double>(c.model.dim);
  ModelCosts costs{.embedding = look_up, .head = HeadFlops(c.model).sum(), .parts_per_block = kBlockParts};
  for (int64_t block = 0; block < c.model.layers; ++block) {
    for (const PartFlops& part : BlockFlops(c.model)) costs.parts.push_back(InProducts(part).sum());
  }
  return FastestLayout(costs, schedule);
}

// The most bytes that a rank holds at a time.
double PeakBytes(const Schedule& s, const StageLayout& layout, double bytes_of_block) {
  double peak = 0;
  for (const std::vector<Action>& list : s.compute) {
    double held = 0;
    for (const Action& a : list) {
      const StageLayout::Parts& parts = layout.stages[a.stage];
      const double bytes = bytes_of_block * (parts.end - parts.first) / layout.parts_per_block;
      if (a.kind == Action::kF) peak = std::max(peak, held += bytes);
      if (Ends(a)) held -= bytes;
    }
  }
  return peak;
}

double SentBytes(const LoweredSchedule& lowered, double boundary_bytes) {
  int64_t most = 0;
  for (const std::vector<Action>& list : lowered.actions) {
    most = std::max<int64_t>(
        most, std::count_if(list.begin(), list.end(), [](const Action& a) { return a.kind == Action::kSend; }));
  }
  return static_cast<double>(most) * boundary_bytes;
}

absl::Status FillRow(const JobConfig& config, const ScheduleQuery& query, double bytes_of_block, ScheduleRow& row) {
  const Schedule& s = row.schedule;
  ASSIGN_OR_RETURN(const StageLayout layout, LayoutOf(config, s));
  StageDurations d{.latency = query.machine.latency_s,
                   .boundary_bytes = BoundaryBytes(config),
                   .bytes_per_s = query.machine.bytes_per_s};
  d.stages = query.stages.empty() ? ModelledStages(config, layout, query.machine.flops_per_s) : query.stages;
  ASSIGN_OR_RETURN(const LoweredSchedule lowered, LowerSchedule(s, d));
  ASSIGN_OR_RETURN(row.timeline, Simulate(s, lowered, d, Streams::kEveryChannel));
  ASSIGN_OR_RETURN(const Timeline one_stream, Simulate(s, lowered, d, Streams::kOne));
  const std::vector<int> peaks = PeakChunks(s);
  row.bubble = BubbleFraction(row.timeline);
  row.peak = static_cast<double>(*std::max_element(peaks.begin(), peaks.end())) / s.chunks;
  row.activation_bytes = PeakBytes(s, layout, bytes_of_block);
  row.sent_bytes = SentBytes(lowered, d.boundary_bytes);
  row.step_s = row.timeline.makespan();
  row.one_stream_step_s = one_stream.makespan();
  return absl::OkStatus();
}

ScheduleRow RowOf(const JobConfig& config, const ScheduleQuery& query, double bytes_of_block, const std::string& name,
                  const absl::StatusOr<Schedule>& schedule, int chunks) {
  ScheduleRow row{.name = name, .chunks = chunks, .refused = schedule.status()};
  if (!schedule.ok()) return row;
  row.schedule = *schedule;
  row.chunks = schedule->chunks;
  row.refused = FillRow(config, query, bytes_of_block, row);
  return row;
}

}  // namespace

std::vector<StageDurations::Stage> ModelledStages(const JobConfig& c, const StageLayout& layout, double flops_per_s) {
  const double tokens = static_cast<double>(c.batch.micro * c.model.seq);
  const double scale = tokens / static_cast<double>(c.parallel.tp) / flops_per_s,
               look_up = 2.0 * static_cast<double>(c.model.dim);
  const auto block = BlockFlops(c.model);
  const int units = kBlockParts / layout.parts_per_block;
  std::vector<StageDurations::Stage> stages;
  for (int s = 0; s < layout.num_stages(); ++s) {
    PassFlops flops;
    if (s == 0) flops += {look_up, look_up, look_up};
    if (s + 1 == layout.num_stages()) flops += HeadFlops(c.model);
    for (int p = layout.stages[s].first * units; p < layout.stages[s].end * units; ++p) {
      flops += InProducts(block[p % kBlockParts]);
    }
    stages.push_back({flops.forward * scale, flops.input_grad * scale, flops.weight_grad * scale});
  }
  return stages;
}

double BoundaryBytes(const JobConfig& c) {
  return static_cast<double>(c.batch.micro * c.model.seq * c.model.dim * SizeOf(c.precision.compute));
}

absl::StatusOr<std::vector<ScheduleRow>> CompareSchedules(const JobConfig& config, const ScheduleQuery& query,
                                                          double bytes_of_block) {
  std::vector<ScheduleRow> rows;
  for (const Schedule& s : query.given) rows.push_back(RowOf(config, query, bytes_of_block, s.name, s, s.chunks));
  std::vector<std::string> names;
  if (query.given.empty() && query.name != "all") names.push_back(query.name);
  if (query.given.empty() && query.name == "all") names.assign(ScheduleNames().begin(), ScheduleNames().end());
  for (const std::string& name : names) {
    const auto make = [&](int chunks) {
      return MakeSchedule({.name = name,
                           .ranks = query.ranks,
                           .chunks = chunks,
                           .micro_batches = static_cast<int>(config.batch.accumulate)});
    };
    rows.push_back(RowOf(config, query, bytes_of_block, name, make(query.chunks), query.chunks));
    if (query.chunks > 0) continue;
    const absl::StatusOr<Schedule> wide = make(kWide);
    if (wide.ok()) rows.push_back(RowOf(config, query, bytes_of_block, name, wide, kWide));
  }
  if (rows.size() == 1 && !rows[0].refused.ok()) return rows[0].refused;
  return rows;
}

std::string ScheduleTable(const JobConfig& config, const ScheduleQuery& query, const std::vector<ScheduleRow>& rows) {
  std::string text = absl::StrFormat(
      "pipeline schedules of %s, simulated: %d ranks, %d micro-batches of %d x %d tokens\n"
      "  %s, %.1f us + %s a transfer at %.3g GB/s\n",
      config.run.name, query.ranks, config.batch.accumulate, config.batch.micro, config.model.seq,
      query.stages.empty() ? absl::StrFormat("%.4g TFLOP/s a rank", query.machine.flops_per_s / 1e12)
                           : "stages as measured",
      query.machine.latency_s * 1e6, HumanBytes(BoundaryBytes(config)), query.machine.bytes_per_s / 1e9);
  absl::StrAppendFormat(&text, "  %-14s %2s %7s %6s %12s %12s %11s %11s\n", "schedule", "v", "bubble", "peak",
                        "activations", "sent", "step", "one stream");
  double fastest = 0;
  for (const ScheduleRow& r : rows) {
    if (r.refused.ok() && (fastest == 0 || r.step_s < fastest)) fastest = r.step_s;
  }
  for (const ScheduleRow& r : rows) {
    if (!r.refused.ok()) {
      absl::StrAppendFormat(&text, "  %-14s %2s no: %s\n", r.name, r.chunks > 0 ? absl::StrFormat("%d", r.chunks) : "",
                            r.refused.message());
      continue;
    }
    absl::StrAppendFormat(&text, "  %-14s %2d %6.1f%% %6.1f %12s %12s %9.4g s %9.4g s%s\n", r.name, r.chunks,
                          100 * r.bubble, r.peak, HumanBytes(r.activation_bytes), HumanBytes(r.sent_bytes), r.step_s,
                          r.one_stream_step_s, r.step_s == fastest && rows.size() > 1 ? "  fastest" : "");
  }
  return text;
}

std::vector<GanttSection> ScheduleSections(const std::vector<ScheduleRow>& rows) {
  std::vector<GanttSection> sections;
  for (const ScheduleRow& r : rows) {
    if (!r.refused.ok()) continue;
    sections.push_back({absl::StrFormat("%s, %d stage%s a rank", r.name, r.chunks, r.chunks == 1 ? "" : "s"),
                        {{"planned", r.timeline}}});
  }
  return sections;
}

}  // namespace strata
