#include "parallel/pipeline/text.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/status.h"
#include "parallel/pipeline/timeline.h"
#include "parallel/pipeline/validate.h"

namespace strata {
namespace {

constexpr std::string_view kKinds = "FBIW";  // by Action::Kind
constexpr int kMaxRanks = 4096, kMaxStages = 8191, kMaxMicroBatches = 1 << 20, kMaxReplicas = 2;

std::string Cell(const Action& a) { return absl::StrFormat("%d%c%d", a.stage, kKinds[a.kind], a.micro_batch); }

// "12F3"
bool ParseCell(const std::string& cell, Action& a) {
  const size_t at = cell.find_first_of(kKinds);
  if (at == std::string::npos) return false;
  int stage = 0;
  const auto digits = [](const std::string& s) {
    return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  const std::string left = cell.substr(0, at), right = cell.substr(at + 1);
  if (!digits(left) || !digits(right) || !absl::SimpleAtoi(left, &stage) || !absl::SimpleAtoi(right, &a.micro_batch))
    return false;
  if (stage >= kMaxStages || a.micro_batch >= kMaxMicroBatches) return false;
  a.stage = static_cast<int16_t>(stage);
  a.kind = static_cast<Action::Kind>(kKinds.find(cell[at]));
  return true;
}

class Parser {
 public:
  explicit Parser(std::string name) { s_.name = std::move(name); }

  absl::StatusOr<Schedule> Run(std::string_view text) {
    const std::vector<std::string> lines = absl::StrSplit(std::string(text), '\n');
    for (size_t i = 0; i < lines.size(); ++i) {
      line_ = static_cast<int>(i) + 1;
      const std::string line(absl::StripAsciiWhitespace(lines[i]));
      if (line.empty()) continue;
      RETURN_IF_ERROR(line[0] == '#' ? Comment(line) : Row(line));
    }
    if (s_.compute.empty()) return absl::InvalidArgumentError("a schedule without rows; a row a rank is expected");
    RETURN_IF_ERROR(Place());
    RETURN_IF_ERROR(ValidateSchedule(s_));
    return std::move(s_);
  }

 private:
  absl::Status Fail(const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrFormat("schedule %s, line %d: %s", s_.name, line_, what));
  }

  absl::Status Comment(const std::string& line) {
    std::string words(absl::StripAsciiWhitespace(line.substr(1)));
    if (!absl::StartsWith(words, "replicas")) return absl::OkStatus();
    const std::vector<std::string> parts = absl::StrSplit(words, '=');
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[1], &s_.replicas) || s_.replicas < 1 ||
        s_.replicas > kMaxReplicas) {
      return Fail("expected \"# replicas = 1\" or 2");
    }
    if (!s_.compute.empty()) return Fail("the number of replicas comes before the rows");
    return absl::OkStatus();
  }

  absl::Status Row(const std::string& line) {
    if (static_cast<int>(s_.compute.size()) == kMaxRanks) return Fail(absl::StrFormat("more than %d rows", kMaxRanks));
    s_.compute.emplace_back();
    std::vector<Action>& list = s_.compute.back();
    int16_t pairs = 0;
    const std::vector<std::string> cells = absl::StrSplit(line, absl::ByAnyChar(", \t\r"), absl::SkipEmpty());
    for (const std::string& cell : cells) {
      const std::vector<std::string> parts = absl::StrSplit(cell, '+');
      if (parts.size() > 2) return Fail(absl::StrFormat("cell \"%s\": at most two actions are issued together", cell));
      if (parts.size() == 2) pairs = static_cast<int16_t>(pairs % 32000 + 1);
      for (const std::string& part : parts) {
        Action a;
        if (!ParseCell(part, a)) {
          return Fail(
              absl::StrFormat("cell \"%s\": expected stage, one of F B I W, and micro-batch, such as 0F3", cell));
        }
        a.replica = static_cast<int16_t>(a.micro_batch % s_.replicas);
        a.overlap = parts.size() == 2 ? pairs : int16_t{0};
        list.push_back(a);
      }
    }
    return absl::OkStatus();
  }

  // A stage lies in whose row it is.
  absl::Status Place() {
    s_.ranks = static_cast<int>(s_.compute.size());
    std::map<std::pair<int, int>, int> rank_of;
    int stages = 0;
    for (int r = 0; r < s_.ranks; ++r) {
      for (const Action& a : s_.compute[r]) {
        s_.micro_batches = std::max(s_.micro_batches, a.micro_batch + 1);
        stages = std::max(stages, a.stage + 1);
        const auto [it, added] = rank_of.insert({{a.replica, a.stage}, r});
        if (it->second == r) continue;
        return absl::InvalidArgumentError(absl::StrFormat(
            "schedule %s: stage %d is on ranks %d and %d (%s); a bidirectional schedule begins with \"# replicas = 2\"",
            s_.name, a.stage, it->second, r, Cell(a)));
      }
    }
    if (stages % s_.ranks != 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "schedule %s: %d stages in %d rows; every rank has as many stages", s_.name, stages, s_.ranks));
    }
    s_.chunks = stages / s_.ranks;
    s_.rank_of.assign(s_.replicas, std::vector<int>(stages, -1));
    for (const auto& [at, rank] : rank_of) s_.rank_of[at.first][at.second] = rank;
    for (int replica = 0; replica < s_.replicas; ++replica) {
      for (int stage = 0; stage < stages; ++stage) {
        if (s_.rank_of[replica][stage] >= 0) continue;
        return absl::InvalidArgumentError(
            absl::StrFormat("schedule %s: stage %d of replica %d is in no row", s_.name, stage, replica));
      }
    }
    return absl::OkStatus();
  }

  Schedule s_;
  int line_ = 0;
};

std::string LoweredCell(const LoweredSchedule& l, const Action& a) {
  if (IsCompute(a)) return Cell(a);
  if (a.kind == Action::kUnshard) return absl::StrFormat("%dunshard", a.stage);
  if (a.kind == Action::kReshard) return absl::StrFormat("%dreshard", a.stage);
  if (a.kind == Action::kReduce) return absl::StrFormat("%dreduce", a.stage);
  if (a.edge < 0) return "update";
  const Edge& e = l.edges[a.edge];
  const char what = e.kind == Edge::kActivation ? 'F' : 'B';
  if (a.kind == Action::kCopyLocal) return absl::StrFormat("%dcopy%c%d", a.stage, what, a.micro_batch);
  if (a.kind == Action::kSend) return absl::StrFormat("%dsend%c%d>%d", a.stage, what, a.micro_batch, e.to);
  return absl::StrFormat("%drecv%c%d<%d", a.stage, what, a.micro_batch, e.from);
}

}  // namespace

std::string DumpSchedule(const Schedule& s) {
  std::string text = "# " + s.name + "\n";
  if (s.replicas > 1) absl::StrAppendFormat(&text, "# replicas = %d\n", s.replicas);
  for (const std::vector<Action>& list : s.compute) {
    for (size_t i = 0; i < list.size(); ++i) {
      const bool paired = i > 0 && list[i].overlap != 0 && list[i].overlap == list[i - 1].overlap;
      if (i > 0) text += paired ? '+' : ',';
      text += Cell(list[i]);
    }
    text += '\n';
  }
  return text;
}

absl::StatusOr<Schedule> ParseSchedule(std::string_view text, std::string name) {
  return Parser(std::move(name)).Run(text);
}

std::string DumpLowered(const LoweredSchedule& l) {
  std::string text;
  for (const std::vector<Action>& list : l.actions) {
    for (size_t i = 0; i < list.size();) {
      const size_t end = GroupEnd(list, i);
      if (i > 0) text += ' ';
      if (end - i > 1) text += '[';
      for (size_t k = i; k < end; ++k) {
        if (k > i) text += ' ';
        text += LoweredCell(l, list[k]);
      }
      if (end - i > 1) text += ']';
      i = end;
    }
    text += '\n';
  }
  return text;
}

}  // namespace strata
