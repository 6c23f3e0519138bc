#include "launch/rendezvous/rank_status.h"

#include <iterator>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace strata {
namespace {

constexpr const char* kStateNames[] = {"unknown", "running", "exited", "killed"};
constexpr int64_t kMaxBytes = 1000;

}  // namespace

std::string RankLogPath(const std::string& log_dir, int rank) {
  return absl::StrFormat("%s/rank-%05d.log", log_dir, rank);
}

std::string RankStatusPath(const std::string& log_dir, int rank) {
  return absl::StrFormat("%s/rank-%05d.status", log_dir, rank);
}

absl::Status WriteRankStatus(Env& env, const std::string& log_dir, int rank, const RankStatus& s) {
  return WriteTextAtomically(env, RankStatusPath(log_dir, rank),
                             absl::StrFormat("%s %d %d %d", kStateNames[s.state], s.value, s.supervisor, s.time_ns));
}

RankStatus ReadRankStatus(Env& env, const std::string& log_dir, int rank) {
  const absl::StatusOr<std::string> text = ReadText(env, RankStatusPath(log_dir, rank), kMaxBytes);
  if (!text.ok()) return {};
  const std::vector<std::string> words = absl::StrSplit(*text, ' ');
  RankStatus s;
  if (words.size() != 4 || !absl::SimpleAtoi(words[1], &s.value) || !absl::SimpleAtoi(words[2], &s.supervisor) ||
      !absl::SimpleAtoi(words[3], &s.time_ns)) {
    return {};
  }
  for (size_t i = 0; i < std::size(kStateNames); ++i) {
    if (words[0] == kStateNames[i]) s.state = static_cast<RankStatus::State>(i);
  }
  return s;
}

}  // namespace strata
