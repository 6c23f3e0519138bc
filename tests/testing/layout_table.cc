#include "tests/testing/layout_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/check.h"
#include "parallel/pipeline/schedule.h"

namespace strata::testing {
namespace {

constexpr const char* kRows[] = {
    // Data parallelism and accumulation.
    "llama acc2",
    "llama acc8",
    "llama dp2",
    "llama dp4 acc2",
    "llama odd dp8",
    "gpt2 dp2 acc2",
    "bert dp4",
    // Tensor parallelism. On odd sizes tp2 replicates 3 kv heads that belong to 6 query heads in pairs.
    "llama tp2",
    "llama tp4 acc4",
    "llama tied kv1 tp4",
    "gpt2 tp4",
    "bert tp2 acc2",
    "llama dp2 tp2 acc2",
    "llama isolate dp2 tp2",
    "llama tied kv1 dp2 tp2 acc2",
    "gpt2 isolate dp2 tp2",
    "bert dp2 tp2",
    "llama dp2 tp4 acc2",
    "gpt2 dp4 tp4 acc2",
    // Sequence parallelism.
    "llama tp2 sp",
    "llama tp2 sp keep",
    "llama tp4 sp acc2",
    "llama kv1 tp4 sp keep",
    "llama isolate tp2 sp",
    "llama tied dp2 tp2 sp acc2",
    "gpt2 tp2 sp",
    "gpt2 dp2 tp4 sp keep acc2",
    "gpt2 isolate dp2 tp2 sp",
    "bert tp4 sp",
    "llama odd tp2",
    "llama odd tied tp2 sp acc2",
    "llama odd tp3 sp",
    "llama odd dp2 tp6 sp keep",
    "gpt2 odd dp2 tp3 acc2",
    "bert odd tp2 sp",
    "bert odd dp2 tp6",
    "bert dp2 tp2 sp keep acc2",
    "llama dp4 tp4 sp",
    // Recompute.
    "llama block",
    "llama selective1 acc2",
    "llama dp2 tp2 sp block",
    "llama tied tp2 sp keep selective",
    "llama isolate tp4 sp block1 acc2",
    "gpt2 dp2 tp2 sp block acc2",
    "gpt2 tp4 selective",
    "bert dp2 tp2 sp selective",
    "bert tp2 sp keep block1",
    "llama odd dp4 tp3 sp selective",
    // ZeRO with all of it.
    "llama dp4 zero1 acc2",
    "llama odd dp2 tp3 sp zero1 selective",
    "llama tied dp2 tp4 sp zero1 block acc2",
    "gpt2 dp4 tp2 sp keep zero1",
    "bert odd dp4 zero1 block1",
    "llama dp2 tp2 sp zero2 acc4",
    "llama odd dp4 tp3 sp zero3 block acc2",
    "llama isolate dp4 zero3 selective acc2",
    "gpt2 dp4 tp4 sp zero3 block1",
    "gpt2 odd dp2 tp6 sp zero2",
    "bert dp8 tp2 sp keep zero3 selective",
    "gpt2 odd tp6 sp block acc4",
};

// Of rows in the table.
constexpr const char* kMpiRows[] = {
    "llama dp4 acc2",          "gpt2 dp2 acc2",
    "llama dp2 tp2 acc2",      "bert dp2 tp2",
    "llama tp4 sp acc2",       "llama kv1 tp4 sp keep",
    "llama odd tp3 sp",        "llama dp2 tp2 sp block",
    "gpt2 isolate dp2 tp2 sp", "bert dp2 tp2 sp selective",
    "llama dp4 zero1 acc2",
};

// "dp8" with prefix "dp": 8; -1 where the word is another one.
int64_t NumberAfter(const std::string& word, std::string_view prefix) {
  if (word.compare(0, prefix.size(), prefix) != 0 || word.size() == prefix.size()) return -1;
  const auto digit = [](unsigned char c) { return std::isdigit(c) != 0; };
  if (!std::all_of(word.begin() + static_cast<long>(prefix.size()), word.end(), digit)) return -1;
  return std::stoll(word.substr(prefix.size()));
}

JobConfig OneRank(ModelArch arch) {
  JobConfig c = SmallJobOf(arch, 1, 1, 1);
  if (arch == ModelArch::kLlama) c.model.kv_heads = 2;
  return c;
}

void MakeOdd(JobConfig& c) {
  c.model.vocab = 1009;
  c.model.dim = 24;
  c.model.heads = 6;
  c.model.kv_heads = c.model.arch == ModelArch::kLlama ? 3 : 6;
  c.model.ffn = 36;
  c.model.seq = 60;
  c.batch.tokens = 8 * c.model.seq;
}

// Words of the model and its data; false for others.
bool ReadModelWord(const std::string& word, JobConfig& c) {
  if (word == "odd") return MakeOdd(c), true;
  if (word == "tied") return c.model.tied = true;
  if (word == "kv1") return c.model.kv_heads = 1, true;
  if (word == "isolate") return c.data.packing = Packing::kIsolate, true;
  if (const int64_t n = NumberAfter(word, "layers"); n > 0) return c.model.layers = n, true;
  if (const int64_t n = NumberAfter(word, "rows"); n > 0) return c.batch.tokens = n * c.model.seq, true;
  return std::find(std::begin(kModelArchNames), std::end(kModelArchNames), word) != std::end(kModelArchNames);
}

bool ReadLayoutWord(const std::string& word, JobConfig& c) {
  const struct {
    std::string_view prefix;
    int64_t& value;
  } numbers[] = {{"dp", c.parallel.dp},
                 {"tp", c.parallel.tp},
                 {"acc", c.batch.accumulate},
                 {"zero", c.parallel.zero.stage},
                 {"pp", c.parallel.pp},
                 {"v", c.parallel.virtual_stages},
                 {"resident", c.parallel.resident_stages}};
  for (const auto& [prefix, value] : numbers) {
    if (const int64_t n = NumberAfter(word, prefix); n > 0) return value = n, true;
  }
  for (const Recompute level : {Recompute::kSelective, Recompute::kBlock}) {
    const std::string_view name = kRecomputeNames[static_cast<size_t>(level)];
    const int64_t blocks = NumberAfter(word, name);
    if (word != name && blocks < 0) continue;
    c.memory.recompute = level;
    c.memory.recompute_blocks = std::max<int64_t>(blocks, 0);
    return true;
  }
  if (word == "sp") return c.parallel.sequence_parallel = true;
  if (word == "keep") return c.parallel.keep_gathered = true;
  if (word.compare(0, 4, "cut=") == 0) return c.parallel.stage_layout = word.substr(4), true;
  const std::span<const std::string_view> schedules = ScheduleNames();
  if (std::find(schedules.begin(), schedules.end(), word) == schedules.end()) return false;
  return c.parallel.schedule = word, true;
}

std::vector<LayoutRow> Parse(std::span<const char* const> rows) {
  std::vector<LayoutRow> table;
  for (const char* row : rows) table.push_back(ParseLayoutRow(row));
  return table;
}

}  // namespace

LayoutRow ParseLayoutRow(const std::string& words) {
  const std::vector<std::string> list = absl::StrSplit(words, ' ');
  const auto arch = std::find(std::begin(kModelArchNames), std::end(kModelArchNames), list[0]);
  STRATA_CHECK(arch != std::end(kModelArchNames));
  LayoutRow row{words, {}, OneRank(static_cast<ModelArch>(arch - std::begin(kModelArchNames)))};
  std::vector<std::string> layout;
  for (const std::string& word : list) {
    if (!ReadModelWord(word, row.one_rank)) layout.push_back(word);
  }
  row.config = row.one_rank;
  for (const std::string& word : layout) STRATA_CHECK(ReadLayoutWord(word, row.config));
  row.one_rank.batch.micro = row.one_rank.batch.tokens / row.one_rank.model.seq;
  row.config.batch.micro = row.one_rank.batch.micro / (row.config.parallel.dp * row.config.batch.accumulate);
  return row;
}

std::vector<LayoutRow> LayoutTable() { return Parse(kRows); }
std::vector<LayoutRow> MpiLayoutRows() { return Parse(kMpiRows); }

LayoutDifference DifferenceOf(const JobRun& a, const JobRun& b) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  LayoutDifference d;
  const auto note = [&](double difference, const std::string& what) {
    if (!(difference <= d.worst)) d = {std::isnan(difference) ? kInfinity : difference, what};
  };
  if (a.steps.size() != b.steps.size() || a.eval_tokens != b.eval_tokens) return {kInfinity, "steps or tokens"};
  if (a.parameters.size() != b.parameters.size()) return {kInfinity, "the list of parameters"};
  for (size_t s = 0; s < b.steps.size(); ++s) {
    if (a.steps[s].tokens != b.steps[s].tokens) return {kInfinity, absl::StrFormat("tokens of step %d", s + 1)};
    note(std::abs(a.steps[s].loss - b.steps[s].loss) / std::max(1.0, b.steps[s].loss),
         absl::StrFormat("loss of step %d", s + 1));
    note(std::abs(a.steps[s].grad_norm - b.steps[s].grad_norm) / std::max(1.0, b.steps[s].grad_norm),
         absl::StrFormat("gradient norm of step %d", s + 1));
  }
  note(std::abs(a.eval_nats - b.eval_nats) / std::max(1.0, b.eval_nats), "evaluation");
  for (const auto& [name, want] : b.parameters) {
    const auto have = a.parameters.find(name);
    if (have == a.parameters.end() || have->second.size() != want.size()) return {kInfinity, name};
    const std::vector<bool>& held = a.held.at(name);
    double difference = 0, scale = 1;
    for (size_t i = 0; i < want.size(); ++i) {
      scale = std::max(scale, std::abs(want[i]));
      if (held[i] && !(std::abs(have->second[i] - want[i]) <= difference))
        difference = std::abs(have->second[i] - want[i]);  // also where it is not a number
    }
    note(difference / scale, name);
  }
  return d;
}

namespace {

// One run a model: rows share it.
const JobRun& OneRankRun(const LayoutRow& row) {
  static auto* const runs = new std::vector<std::pair<JobConfig, JobRun>>;
  const auto it = std::find_if(runs->begin(), runs->end(), [&](auto& r) { return r.first == row.one_rank; });
  if (it != runs->end()) return it->second;
  absl::StatusOr<JobRun> run = RunJob(row.one_rank, kLayoutSteps);
  EXPECT_TRUE(run.ok()) << run.status();
  return runs->emplace_back(row.one_rank, *std::move(run)).second;
}

}  // namespace

void ExpectEqualsOneRank(const LayoutRow& row) {
  const absl::StatusOr<JobRun> run = RunJob(row.config, kLayoutSteps);
  ASSERT_TRUE(run.ok()) << run.status();
  ASSERT_EQ(run->steps.size(), static_cast<size_t>(kLayoutSteps));
  for (const auto& [name, held] : run->held) EXPECT_EQ(std::count(held.begin(), held.end(), false), 0) << name;
  const LayoutDifference d = DifferenceOf(*run, OneRankRun(row));
  EXPECT_LE(d.worst, kLayoutTolerance) << d.what;
  JobConfig overlapped = row.config;
  overlapped.parallel.overlap = Overlap::kOn;
  const bool exchanged = row.name.size() % 2 == 0;  // of half of the rows
  if (exchanged) overlapped.parallel.reduce_scatter = ReduceScatterBy::kExchange;
  const absl::StatusOr<JobRun> other = RunJob(overlapped, kLayoutSteps);
  ASSERT_TRUE(other.ok()) << other.status();
  const LayoutDifference moved = DifferenceOf(*other, *run);
  EXPECT_EQ(moved.worst, 0) << "with overlap" << (exchanged ? " and exchanged shards: " : ": ") << moved.what;
}

}  // namespace strata::testing
