#include "launch/job/profile.h"

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "core/graph/op.h"

namespace strata {
namespace {

std::string NameOf(const Step& s) {
  if (s.kind == Step::kCollective) return Name(s.call.kind);
  return s.op != nullptr ? std::string(s.op->name()) : "copy";
}

std::string ShapesOf(const Step& s) {
  std::string text;
  for (const Operand& o : s.in) {
    if (!text.empty()) text += ' ';
    text += Name(o.view.dtype) + ToString(o.view.shape);
  }
  return text;
}

Cost CostOf(const Step& s) {
  if (s.kernel == nullptr || s.kernel->cost == nullptr || s.op == nullptr) return {};
  std::vector<TensorRef> in, out;
  for (const Operand& o : s.in) in.push_back(o.view);
  for (const Operand& o : s.out) out.push_back(o.view);
  return s.kernel->cost(*s.op, in, out);
}

}  // namespace

Work WorkOf(const Step& step) {
  if (step.kind == Step::kCollective) return Work::kCollective;
  const std::string name = NameOf(step);
  if (absl::StartsWith(name, "linear")) return Work::kGemm;
  if (absl::StartsWith(name, "attention")) return Work::kAttention;
  for (const char* op : {"adamw", "sgd", "sum_squares", "total_squares", "sqrt", "guard"}) {
    if (name == op) return Work::kOptimizer;
  }
  return Work::kMemoryBound;
}

double ExposedSeconds(const std::vector<Executor::TimedStep>& steps) {
  struct Edge {
    double at;
    int collectives, others;
  };
  std::vector<Edge> edges;
  for (const Executor::TimedStep& t : steps) {
    const int collective = WorkOf(*t.step) == Work::kCollective ? 1 : 0;
    edges.push_back({t.begin, collective, 1 - collective});
    edges.push_back({t.begin + t.seconds, -collective, collective - 1});
  }
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });
  double exposed = 0, last = 0;
  int collectives = 0, others = 0;
  for (const Edge& e : edges) {
    if (collectives > 0 && others == 0) exposed += e.at - last;
    last = e.at;
    collectives += e.collectives;
    others += e.others;
  }
  return exposed;
}

ProfileSummary Summarize(const std::vector<Executor::TimedStep>& steps) {
  ProfileSummary summary;
  std::map<std::pair<std::string, std::string>, ProfileRow> rows;
  for (const Executor::TimedStep& t : steps) {
    const Work work = WorkOf(*t.step);
    summary.seconds[static_cast<size_t>(work)] += t.seconds;
    ProfileRow& row = rows[{NameOf(*t.step), ShapesOf(*t.step)}];
    const Cost cost = CostOf(*t.step);
    row.work = work;
    row.op = NameOf(*t.step);
    row.shapes = ShapesOf(*t.step);
    ++row.calls;
    row.seconds += t.seconds;
    row.flops += cost.flops;
    row.bytes += cost.bytes;
  }
  for (auto& [key, row] : rows) summary.rows.push_back(std::move(row));
  std::stable_sort(summary.rows.begin(), summary.rows.end(), [](auto& a, auto& b) { return a.seconds > b.seconds; });
  return summary;
}

std::string ProfileTable(const ProfileSummary& summary, const Work* only) {
  double total = 0;
  for (double s : summary.seconds) total += s;
  std::string text = "      ms      %  calls         rate  op\n";
  for (const ProfileRow& r : summary.rows) {
    if (only != nullptr && r.work != *only) continue;
    const std::string rate = r.flops > 0 ? absl::StrFormat("%6.1f TF/s", r.flops / r.seconds / 1e12)
                                         : absl::StrFormat("%6.0f GB/s", r.bytes / r.seconds / 1e9);
    absl::StrAppendFormat(&text, "%8.3f  %5.1f  %5d %12s  %s(%s)\n", r.seconds * 1e3, 100 * r.seconds / total, r.calls,
                          rate, r.op, r.shapes);
  }
  return text;
}

std::string ChromeTrace(const std::vector<Executor::TimedStep>& steps, int rank) {
  std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [";
  const char* separator = "\n";
  for (const Executor::TimedStep& t : steps) {
    absl::StrAppendFormat(
        &text,
        "%s{\"name\": \"%s\", \"cat\": \"%s\", \"ph\": \"X\", \"pid\": %d, \"tid\": %d, \"ts\": %.3f, "
        "\"dur\": %.3f, \"args\": {\"scope\": \"%s\", \"action\": \"%s\", \"in\": \"%s\"}}",
        separator, NameOf(*t.step), std::string(kWorkNames[static_cast<size_t>(WorkOf(*t.step))]), rank, t.step->stream,
        t.begin * 1e6, t.seconds * 1e6, t.step->scope, ToString(t.action), ShapesOf(*t.step));
    separator = ",\n";
  }
  return text + "\n]}\n";
}

}  // namespace strata
