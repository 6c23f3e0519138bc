#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/graph/op.h"
#include "core/plan/plan.h"

namespace strata {
namespace {

std::string Address(const Plan& plan, const Operand& o) {
  return absl::StrFormat("%s%s @%s+%d", Name(o.view.dtype), ToString(o.view.shape), plan.regions[o.ref.region].name,
                         o.ref.offset);
}

std::string What(const Plan& plan, const Step& s) {
  switch (s.kind) {
    case Step::kLaunch: return std::string(s.op->name());
    case Step::kCollective:
      return absl::StrFormat("%s[%s] x%d", Name(s.call.kind), plan.comms[s.comm].name, plan.comms[s.comm].ranks.size());
    case Step::kCopy: return "copy";
    case Step::kRecord: return absl::StrFormat("record event %d", s.event);
    case Step::kWait: return absl::StrFormat("wait event %d", s.event);
  }
  return "";
}

std::string Line(const Plan& plan, const Step& s) {
  std::string in, out;
  for (const Operand& o : s.in) in += (in.empty() ? "" : ", ") + Address(plan, o);
  for (const Operand& o : s.out) out += (out.empty() ? "" : ", ") + Address(plan, o);
  return absl::StrFormat("%-16s (%s) -> %s | %s", What(plan, s), in, out, s.scope);
}

// "  collectives dp | B0.0 14 reduce-scatter[dp] | bucket.blocks.1 | after event 3, 5 | event 7"
void AppendIssued(const Plan& plan, const Program& p, std::string& text) {
  absl::StrAppendFormat(&text, "  issued\n");
  for (const IssuedStep& i : p.issues) {
    const Action& a = p.actions[i.action];
    const Step* step = i.step < 0 ? nullptr : &p.segments[p.SegmentOf(a)].steps[i.step];
    const std::string what = step != nullptr ? absl::StrFormat("%d %s | %s", i.step, What(plan, *step), step->scope)
                             : i.step == IssuedStep::kFeed ? "inputs"
                                                           : "outputs";
    absl::StrAppendFormat(&text, "    %-16s | %s %s", plan.streams[i.stream].name, ToString(a), what);
    for (int32_t e : i.waits) absl::StrAppendFormat(&text, " | after %d", e);
    if (i.record >= 0) absl::StrAppendFormat(&text, " | event %d", i.record);
    text += "\n";
  }
}

}  // namespace

std::string HumanBytes(double bytes) {
  constexpr const char* kUnit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  int u = 0;
  while (bytes >= 1024 && u < 5) {
    bytes /= 1024;
    ++u;
  }
  return absl::StrFormat("%.*f %s", u == 0 ? 0 : 2, bytes, kUnit[u]);
}

std::string Print(const Plan& plan, PrintDetail detail) {
  std::string text = "memory of one rank\n";
  for (const Region& r : plan.regions) {
    if (r.bytes == 0) continue;
    absl::StrAppendFormat(&text, "  %-24s %12s%s  @%d\n", r.name, HumanBytes(static_cast<double>(r.bytes)),
                          r.slots > 1 ? absl::StrFormat(" x %d slots", r.slots) : "", r.offset);
  }
  absl::StrAppendFormat(&text, "  %-24s %12s  (%d bytes, exact)\n", "arena",
                        HumanBytes(static_cast<double>(plan.arena_bytes[0])), plan.arena_bytes[0]);
  if (plan.outside_bytes[0] > 0) {
    absl::StrAppendFormat(&text, "  %-24s %12s  (libraries and the like, estimated)\n", "outside of it",
                          HumanBytes(static_cast<double>(plan.outside_bytes[0])));
  }
  for (const CommSpec& c : plan.comms) {
    if (c.ranks.empty()) continue;
    std::string ranks;
    for (int r : c.ranks) ranks += (ranks.empty() ? "" : ",") + std::to_string(r);
    absl::StrAppendFormat(&text, "communicator %s: ranks %s\n", c.name, ranks);
  }
  if (plan.streams.size() > 1) {
    text += "streams:";
    for (const PlannedStream& s : plan.streams)
      absl::StrAppendFormat(&text, "%s %s", &s == plan.streams.data() ? "" : ",", s.name);
    absl::StrAppendFormat(&text, "; %d events\n", plan.events);
  }
  for (const Program& p : plan.programs) {
    absl::StrAppendFormat(&text, "program %s:", p.name);
    for (size_t i = 0; i < p.actions.size(); ++i) {
      if (i >= 8 && i + 2 < p.actions.size()) {
        if (i == 8) text += " ...";
        continue;
      }
      text += " " + ToString(p.actions[i]);
    }
    text += "\n";
    for (const Segment& s : p.segments) {
      int launches = 0, collectives = 0;
      double bytes = 0;
      for (const Step& step : s.steps) {
        launches += step.kind == Step::kLaunch;
        collectives += step.kind == Step::kCollective;
        if (step.kind == Step::kCollective)
          bytes += step.calls * BytesSent(step.call, static_cast<int>(plan.comms[step.comm].ranks.size()));
      }
      const Action a{.kind = s.kind, .replica = s.replica, .stage = s.stage, .edge = s.edge};
      absl::StrAppendFormat(&text, "  segment %s%s: %d steps, %d kernels, %d collectives, %s sent\n", ToString(a),
                            s.edge < 0 ? "" : " over " + ToString(p.edges[s.edge]), s.steps.size(), launches,
                            collectives, HumanBytes(bytes));
      if (detail == PrintDetail::kSummary) continue;
      for (size_t i = 0; i < s.steps.size(); ++i)
        absl::StrAppendFormat(&text, "    %4d %s\n", i, Line(plan, s.steps[i]));
    }
    if (detail == PrintDetail::kSteps && !p.issues.empty()) AppendIssued(plan, p, text);
  }
  return text;
}

}  // namespace strata
