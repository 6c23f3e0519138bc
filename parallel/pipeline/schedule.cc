#include "parallel/pipeline/schedule.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "parallel/pipeline/schedules/generators.h"

namespace strata {
namespace {

constexpr int64_t kMaxActions = int64_t{1} << 26;  // F and B of all ranks

const Generator* Find(std::string_view name) {
  for (const Generator& g : Generators()) {
    if (g.name == name) return &g;
  }
  return nullptr;
}

// Whatever the schedule: positive sizes that fit the types of an Action.
absl::Status CheckSizes(const ScheduleSpec& s) {
  if (s.ranks < 1 || s.micro_batches < 1 || s.chunks < 0 || s.group < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a pipeline schedule of %d ranks, %d chunks and %d micro-batches: they must be positive",
                        s.ranks, s.chunks, s.micro_batches));
  }
  const int64_t stages = int64_t{s.ranks} * std::max(s.chunks, 1);
  if (stages > std::numeric_limits<int16_t>::max() / 4 || stages * s.micro_batches > kMaxActions) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "a pipeline schedule of %d stages and %d micro-batches is too large: at most %d stages, and %d stages "
        "x micro-batches",
        stages, s.micro_batches, std::numeric_limits<int16_t>::max() / 4, kMaxActions));
  }
  return absl::OkStatus();
}

// The legal spec that differs from this one in one number, by the least; the lower of two.
std::optional<int> Nearest(const Generator& g, const ScheduleSpec& spec, int ScheduleSpec::*field) {
  const int reach = 4 * spec.ranks + 4 * spec.micro_batches + 16;
  for (int d = 1; d <= reach; ++d) {
    for (int sign : {-1, 1}) {
      ScheduleSpec near = spec;
      near.*field += sign * d;
      if (near.*field >= 1 && g.legal(near)) return near.*field;
    }
  }
  return std::nullopt;
}

absl::Status Illegal(const Generator& g, const ScheduleSpec& spec) {
  struct Knob {
    int ScheduleSpec::*field;
    std::string_view name, one;
  };
  std::vector<Knob> knobs = {{&ScheduleSpec::micro_batches, "micro-batches", "micro-batch"},
                             {&ScheduleSpec::ranks, "ranks", "rank"}};
  if (spec.group > 0) knobs.push_back({&ScheduleSpec::group, "micro-batches a group", "micro-batch a group"});
  std::vector<std::string> nearest;
  for (const Knob& knob : knobs) {
    const std::optional<int> n = Nearest(g, spec, knob.field);
    if (n) nearest.push_back(absl::StrFormat("%d %s", *n, *n == 1 ? knob.one : knob.name));
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "schedule %s cannot have %d ranks and %d micro-batches%s: it needs %s; nearest legal: %s", g.name, spec.ranks,
      spec.micro_batches, spec.group > 0 ? absl::StrFormat(" in groups of %d", spec.group) : "", g.needs,
      nearest.empty() ? "none" : absl::StrJoin(nearest, ", or ")));
}

}  // namespace

std::span<const std::string_view> ScheduleNames() {
  static const std::vector<std::string_view> names = [] {
    std::vector<std::string_view> all;
    for (const Generator& g : Generators()) all.push_back(g.name);
    return all;
  }();
  return names;
}

absl::StatusOr<Schedule> MakeSchedule(const ScheduleSpec& given) {
  if (absl::Status s = CheckSizes(given); !s.ok()) return s;
  const Generator* g = Find(given.name);
  if (g == nullptr) {
    std::string names;
    for (std::string_view name : ScheduleNames())
      absl::StrAppendFormat(&names, "%s%s", names.empty() ? "" : ", ", name);
    return absl::InvalidArgumentError(
        absl::StrFormat("no pipeline schedule is called \"%s\"; there are %s", given.name, names));
  }
  ScheduleSpec spec = given;
  if (spec.chunks == 0) spec.chunks = g->usual_chunks;
  if (spec.memory_cap == 0) spec.memory_cap = 1.5 * spec.ranks;
  if (spec.chunks < g->min_chunks || spec.chunks > g->max_chunks) {
    return absl::InvalidArgumentError(absl::StrFormat("schedule %s cannot have %d chunks a rank; nearest legal: %d",
                                                      g->name, spec.chunks,
                                                      std::clamp(spec.chunks, g->min_chunks, g->max_chunks)));
  }
  if (absl::Status s = CheckSizes(spec); !s.ok()) return s;
  if (!g->legal(spec)) return Illegal(*g, spec);
  return g->make(spec);
}

}  // namespace strata
