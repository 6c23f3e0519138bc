#include "launch/rendezvous/outcome.h"

#include <cstring>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/cli/exit_codes.h"

namespace strata {
namespace {

bool Failed(const RankStatus& s) { return s.ended() && s.exit_code() != kExitOk && s.exit_code() != kExitPreempted; }
bool IsVictim(const RankStatus& s) { return s.state == RankStatus::kExited && s.value == kExitPeerLost; }

bool ComesBefore(const RankStatus& a, const RankStatus& b) {
  if (IsVictim(a) != IsVictim(b)) return IsVictim(b);
  return a.time_ns < b.time_ns;
}

std::string HowItEnded(const RankStatus& s) {
  if (s.state == RankStatus::kKilled) return absl::StrFormat("killed by signal %d (%s)", s.value, strsignal(s.value));
  if (!s.ended()) return "stopped with them";
  if (IsVictim(s)) return "lost a peer";
  if (s.value == kExitHang) return absl::StrFormat("gave up waiting (exit code %d)", s.value);
  if (s.value == kExitOk) return "done";
  if (s.value == kExitPreempted) return "saved";
  return absl::StrFormat("exit code %d", s.value);
}

}  // namespace

std::string RankList(std::span<const int> ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    absl::StrAppend(&text, i == 0 ? "" : ", ", ranks[i]);
    if (end - i > 1) absl::StrAppend(&text, end - i == 2 ? ", " : "-", ranks[end - 1]);
    i = end;
  }
  return text;
}

JobOutcome JudgeRanks(std::span<const RankStatus> ranks) {
  JobOutcome outcome;
  int& causal = outcome.causal_rank;
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (ranks[r].ended() && ranks[r].exit_code() == kExitPreempted) outcome.exit_code = kExitPreempted;
    if (Failed(ranks[r]) && (causal < 0 || ComesBefore(ranks[r], ranks[causal]))) causal = static_cast<int>(r);
  }
  if (causal < 0) return outcome;
  outcome.exit_code = ranks[causal].exit_code();
  outcome.description = absl::StrFormat("rank %d failed first: %s", causal, HowItEnded(ranks[causal]));
  std::map<std::string, std::vector<int>> others;
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (static_cast<int>(r) != causal) others[HowItEnded(ranks[r])].push_back(static_cast<int>(r));
  }
  std::string line;
  for (const auto& [how, list] : others) {
    absl::StrAppend(&line, line.empty() ? "\n" : "; ", list.size() == 1 ? "rank " : "ranks ", RankList(list), ": ",
                    how);
  }
  outcome.description += line;
  return outcome;
}

}  // namespace strata
