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

std::string Line(const Plan& plan, const Step& s) {
  std::string in, out, what;
  for (const Operand& o : s.in) in += (in.empty() ? "" : ", ") + Address(plan, o);
  for (const Operand& o : s.out) out += (out.empty() ? "" : ", ") + Address(plan, o);
  switch (s.kind) {
    case Step::kLaunch: what = std::string(s.op->name()); break;
    case Step::kCollective:
      what = absl::StrFormat("%s[%s] x%d", Name(s.call.kind), plan.comms[s.comm].name, plan.comms[s.comm].ranks.size());
      break;
    case Step::kCopy: what = "copy"; break;
    case Step::kRecord: what = absl::StrFormat("record event %d", s.event); break;
    case Step::kWait: what = absl::StrFormat("wait event %d", s.event); break;
  }
  return absl::StrFormat("%-16s (%s) -> %s | %s", what, in, out, s.scope);
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
  for (const CommSpec& c : plan.comms) {
    if (c.ranks.empty()) continue;
    std::string ranks;
    for (int r : c.ranks) ranks += (ranks.empty() ? "" : ",") + std::to_string(r);
    absl::StrAppendFormat(&text, "communicator %s: ranks %s\n", c.name, ranks);
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
          bytes += BytesSent(step.call, static_cast<int>(plan.comms[step.comm].ranks.size()));
      }
      const Action a{.kind = s.kind, .replica = s.replica, .stage = s.stage, .edge = s.edge};
      absl::StrAppendFormat(&text, "  segment %s%s: %d steps, %d kernels, %d collectives, %s sent\n", ToString(a),
                            s.edge < 0 ? "" : " over " + ToString(p.edges[s.edge]), s.steps.size(), launches,
                            collectives, HumanBytes(bytes));
      if (detail == PrintDetail::kSummary) continue;
      for (size_t i = 0; i < s.steps.size(); ++i)
        absl::StrAppendFormat(&text, "    %4d %s\n", i, Line(plan, s.steps[i]));
    }
  }
  return text;
}

}  // namespace strata
