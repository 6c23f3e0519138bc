// float64: a pipeline equals the run on one rank after several steps: losses, gradient norms, evaluation and every
// parameter; for every schedule, composed with other parallelism, and with everything that crosses stages.

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_replace.h"
#include "launch/job/compile.h"
#include "tests/testing/layout_table.h"

namespace strata {
namespace {

using testing::DifferenceOf;
using testing::JobRun;
using testing::kLayoutSteps;
using testing::kLayoutTolerance;
using testing::LayoutRow;
using testing::ParseLayoutRow;
using testing::RunJob;

constexpr const char* kRows[] = {
    // Every schedule at p = 2 and 4, v = 1 and 2 where it has both.
    "llama layers4 gpipe pp2 acc4",
    "llama layers8 gpipe pp4 acc4",
    "llama layers4 1f1b pp2 acc2",
    "llama layers8 1f1b pp4 acc8",
    "llama layers4 interleaved v2 pp2 acc4",
    "llama layers8 interleaved v2 pp4 acc8",
    "llama layers4 breadth-first v1 pp2 acc2",
    "llama layers4 breadth-first v2 pp2 acc4",
    "llama layers8 breadth-first v2 pp4 acc4",
    "llama layers4 chimera pp2 acc4",
    "llama layers8 chimera pp4 acc8",
    "llama layers4 bitpipe pp2 acc4",
    "llama layers8 bitpipe pp4 acc8",
    "llama layers4 zb-h1 pp2 acc4",
    "llama layers8 zb-h1 pp4 acc8",
    "llama layers4 zbv pp2 acc4",
    "llama layers8 zbv pp4 acc8",
    "llama layers4 dualpipe pp2 acc4",
    "llama layers8 dualpipe pp4 acc8",
    "llama layers4 dualpipe-v pp2 acc4",
    "llama layers8 dualpipe-v pp4 acc8",
    "llama layers4 greedy v1 pp2 acc4",
    "llama layers8 greedy v2 pp4 acc8",
    // p = 8.
    "llama layers8 1f1b pp8 acc8",
    "llama layers16 interleaved v2 pp8 acc8",
    "llama layers8 zb-h1 pp8 acc8",
    // With data and tensor parallelism and ZeRO.
    "llama layers4 gpipe pp2 dp2 acc2 zero1",
    "llama layers4 1f1b pp2 dp2 tp2 acc2",
    "llama layers4 1f1b pp2 dp2 acc4 zero1",
    "llama layers4 1f1b pp4 tp2 acc4",
    "llama layers4 interleaved v2 pp2 dp2 tp2 acc4 zero1",
    "llama layers4 breadth-first v2 pp2 dp2 acc4 zero1",
    "llama layers4 chimera pp2 dp2 tp2 acc4 zero1",
    "llama layers4 bitpipe pp2 dp2 acc4 zero1",
    "llama layers4 zb-h1 pp2 dp2 tp2 acc4 zero1",
    "llama layers4 zbv pp2 dp2 tp2 acc4 zero1",
    "llama layers4 dualpipe pp2 dp2 tp2 acc4 zero1",
    "llama layers4 dualpipe-v pp2 dp2 acc4 zero1",
    "llama layers4 greedy v2 pp2 dp2 tp2 acc2 zero1",
    "llama layers4 1f1b pp2 dp2 acc4 zero2",
    "llama layers4 1f1b pp2 dp2 acc4 zero3",
    "llama layers4 gpipe pp2 dp2 acc2 zero3",
    "llama layers4 interleaved v2 pp2 dp2 acc4 zero3",
    "llama layers4 breadth-first v2 pp2 dp2 acc4 zero3",
    "llama layers4 chimera pp2 dp2 acc4 zero3",
    "llama layers4 bitpipe pp2 dp2 acc4 zero2",
    "llama layers4 zb-h1 pp2 dp2 tp2 acc4 zero3",
    "llama layers4 zbv pp2 dp2 acc4 zero3",
    "llama layers4 dualpipe pp2 dp2 acc4 zero3",
    "llama layers4 dualpipe-v pp2 dp2 acc4 zero2",
    "llama layers4 greedy v2 pp2 dp2 acc2 zero3",
    "llama layers4 bitpipe pp2 dp2 acc4 zero3",
    "llama layers4 dualpipe-v pp2 dp2 acc4 zero3",
    "llama layers4 gpipe pp2 tp2 acc2",
    "llama layers4 breadth-first v2 pp2 tp2 acc4",
    "llama layers4 bitpipe pp2 tp2 acc4",
    "llama layers4 dualpipe-v pp2 tp2 acc4 zero1",
    // Stages that stay gathered for several micro-batches.
    "llama layers4 breadth-first v2 pp2 dp2 acc4 zero3 resident1",
    "llama layers8 breadth-first v2 pp4 dp2 acc4 zero3 resident2",
    "llama layers4 interleaved v2 pp2 dp2 acc4 zero3 resident1",
    "llama layers4 1f1b pp2 dp2 acc4 zero3 resident1 block",
    "llama layers4 chimera pp2 dp2 acc4 zero3 resident2",
    "llama layers4 zb-h1 pp2 dp2 tp2 acc4 zero3 resident1",
    "llama tied layers4 zbv pp2 dp2 acc4 zero3 resident2",
    // Tied embeddings: on two ranks, on one, on two in both directions.
    "llama tied layers4 1f1b pp4 acc4",
    "llama tied layers4 1f1b pp2 dp2 acc2 zero1",
    "llama tied layers4 zbv pp2 acc4",
    "llama tied layers4 zbv pp2 dp2 tp2 acc4 zero1",
    "llama tied layers4 chimera pp2 dp2 acc4",
    "llama tied layers4 bitpipe pp2 dp2 acc4 zero1",
    "llama tied layers4 1f1b pp2 dp2 acc4 zero3",
    "llama tied layers4 zbv pp2 dp2 acc4 zero3",
    "llama tied layers8 interleaved v2 pp4 acc4",
    "llama tied kv1 layers4 dualpipe pp2 tp2 acc4",
    // GPT-2 and BERT with dropout, documents kept apart, odd sizes, sequence parallelism, recompute.
    "gpt2 layers4 1f1b pp4 acc4",
    "gpt2 layers4 zbv pp2 dp2 tp2 acc4 zero1",
    "gpt2 isolate layers4 interleaved v2 pp2 tp2 acc4",
    "bert layers4 1f1b pp2 dp2 tp2 acc2 zero1",
    "bert layers4 zb-h1 pp4 acc8",
    "gpt2 layers4 1f1b pp2 dp2 acc4 zero3 block",
    "bert layers4 chimera pp2 acc4",
    "llama isolate layers4 zb-h1 pp2 dp2 acc4",
    "llama odd layers3 1f1b pp3 dp2 acc4",
    "llama layers4 1f1b pp2 tp2 sp acc4",
    "gpt2 layers4 zbv pp2 tp2 sp keep acc4 zero1",
    "llama layers4 1f1b pp2 dp2 acc4 block",
    "gpt2 layers4 zb-h1 pp2 tp2 sp acc4 block1",
    "llama layers4 interleaved v2 pp2 acc4 selective",
    // Stages by hand: uneven, the embedding and the head alone.
    "llama layers5 1f1b pp4 acc4 cut=E|0-2|3|4,H",
    "llama tied layers5 zb-h1 pp4 acc4 cut=E,0|1|2-4|H",
    "gpt2 layers6 interleaved v2 pp2 dp2 acc4 cut=E|0-3|4-5|H",
    // Stages that end in the middle of a block; in V shapes one rank has both halves.
    "llama layers3 1f1b pp2 acc4 cut=E,0-1a|1b-2,H",
    "llama layers2 1f1b pp4 tp2 sp acc4 cut=E,0a|0b|1a|1b,H",
    "llama tied layers3 zb-h1 pp2 dp2 tp2 sp acc4 zero1 cut=E,0-1a|1b-2,H",
    "llama layers3 zb-h1 pp2 dp2 acc4 zero3 block cut=E,0-1a|1b-2,H",
    "llama isolate layers3 interleaved v2 pp2 tp2 sp keep acc4 cut=E,0a|0b-1a|1b-2a|2b,H",
    "llama layers4 zbv pp2 dp2 acc4 zero3 cut=E,0|1a|1b-2|3,H",
    "llama tied layers4 zbv pp2 dp2 tp2 sp acc4 zero1 block cut=E,0a|0b-1a|1b-2|3,H",
    "llama layers4 zbv pp2 dp2 acc4 zero2 cut=E,0a|0b|1a|1b-3,H",
    "llama layers4 bitpipe pp2 dp2 acc4 zero1 cut=E,0|1a|1b-2a|2b-3,H",
    "llama tied layers4 bitpipe pp2 tp2 sp acc4 block cut=E,0-1a|1b|2|3,H",
    "llama layers4 bitpipe pp2 dp2 acc4 zero3 cut=E,0a|0b-1a|1b-2|3,H",
    "llama layers4 chimera pp2 dp2 acc4 zero3 resident1 cut=E,0-1a|1b-3,H",
    "llama layers4 dualpipe pp2 tp2 acc4 cut=E,0a|0b-3,H",
    "llama layers4 dualpipe-v pp2 dp2 acc4 zero3 cut=E,0|1a|1b-2|3,H",
    "llama layers4 breadth-first v2 pp2 dp2 acc4 zero3 resident1 block cut=E,0a|0b-1a|1b-2a|2b-3,H",
    "gpt2 layers3 1f1b pp2 dp2 acc4 zero1 cut=E,0-1a|1b-2,H",
    "gpt2 layers2 zb-h1 pp2 tp2 sp acc4 block1 cut=E,0a|0b-1,H",
    "gpt2 isolate layers3 zbv pp2 dp2 tp2 acc4 zero3 cut=E,0|1a|1b|2,H",
    "gpt2 layers4 bitpipe pp2 dp2 tp2 sp acc4 zero1 cut=E,0-1a|1b|2a|2b-3,H",
    "bert layers2 1f1b pp3 tp2 sp acc4 cut=E,0a|0b-1a|1b,H",
    "bert layers3 zb-h1 pp2 dp2 acc4 zero1 block cut=E,0-1a|1b-2,H",
    "bert layers3 interleaved v2 pp2 dp2 acc4 zero3 cut=E,0a|0b-1a|1b-2a|2b,H",
    "bert layers4 bitpipe pp2 tp2 acc4 selective cut=E,0a|0b-1a|1b-2a|2b-3,H",
};

class Pipelines : public ::testing::TestWithParam<const char*> {};

TEST_P(Pipelines, EqualsOneRank) {
  const LayoutRow row = ParseLayoutRow(GetParam());
  testing::ExpectEqualsOneRank(row);
}

INSTANTIATE_TEST_SUITE_P(All, Pipelines, ::testing::ValuesIn(kRows), [](const auto& info) {
  return absl::StrReplaceAll(info.param, {{" ", "_"}, {"-", ""}, {"cut=", "cut_"}, {"|", "_"}, {",", ""}});
});

TEST(PipelineTable, HasEverySchedule) {
  std::set<std::string> schedules;
  for (const char* row : kRows) schedules.insert(ParseLayoutRow(row).config.parallel.schedule);
  for (const std::string_view name : ScheduleNames()) EXPECT_TRUE(schedules.contains(std::string(name))) << name;
}

// Breadth-first uses a stage for all micro-batches in a row, and so gathers it once forward and once backward (its last stage
// but once in all), whatever their number; depth-first gathers again and again where a rank has room for one stage.
TEST(Pipeline, ResidentStagesAreGatheredOnceForAllMicroBatches) {
  const auto gathers = [](const std::string& words) -> int64_t {
    const absl::StatusOr<JobRun> run =
        RunJob(ParseLayoutRow("llama layers4 v2 pp2 dp2 zero3 rows16 " + words).config, 1);
    EXPECT_TRUE(run.ok()) << run.status();
    return run.ok() ? run->calls.at("dp all-gather") : 0;
  };
  const int64_t breadth = gathers("breadth-first acc4 resident1");
  EXPECT_EQ(breadth, 5);  // rank 0: the embedding and block 0 forward and backward, block 2 once
  EXPECT_EQ(gathers("breadth-first acc8 resident1"), breadth);
  EXPECT_EQ(gathers("breadth-first acc8"), 2 * gathers("breadth-first acc4"));
  EXPECT_EQ(gathers("breadth-first acc4"), 4 * 5);  // two blocks forward and backward, the embedding forward
  EXPECT_GT(gathers("interleaved acc8 resident1"), 2 * breadth);
}

// Clipping by the norm of the whole gradient, however it is spread.
TEST(Pipeline, ClipsByTheWholeNorm) {
  LayoutRow row = ParseLayoutRow("llama tied layers4 1f1b pp4 dp2 acc2 zero1");
  row.config.optim.clip = row.one_rank.optim.clip = 0.05;
  const absl::StatusOr<JobRun> want = RunJob(row.one_rank, kLayoutSteps), run = RunJob(row.config, kLayoutSteps);
  ASSERT_TRUE(want.ok() && run.ok()) << want.status() << run.status();
  for (const StepReport& s : want->steps) EXPECT_GT(s.grad_norm, 0.05);
  EXPECT_LE(DifferenceOf(*run, *want).worst, kLayoutTolerance);
  LayoutRow other = row;
  other.one_rank.optim.clip = 0;
  EXPECT_GT(DifferenceOf(*run, *RunJob(other.one_rank, kLayoutSteps)).worst, 1e-4);
}

TEST(Pipeline, SgdEqualsOneRank) {
  LayoutRow row = ParseLayoutRow("gpt2 layers4 zbv pp2 dp2 acc4");
  row.config.optim.type = row.one_rank.optim.type = OptimizerType::kSgd;
  const absl::StatusOr<JobRun> want = RunJob(row.one_rank, kLayoutSteps), run = RunJob(row.config, kLayoutSteps);
  ASSERT_TRUE(want.ok() && run.ok()) << want.status() << run.status();
  EXPECT_LE(DifferenceOf(*run, *want).worst, kLayoutTolerance);
}

// A spike is skipped on every rank or on none: also on those that do not compute the loss.
TEST(Pipeline, GuardsDecideAlike) {
  const LayoutRow row = ParseLayoutRow("llama layers4 1f1b pp4 acc4");
  const testing::TableRows rows(row.config.model.vocab, 3);
  const std::vector<int> steps = {1, 2};
  const absl::StatusOr<JobRun> run = RunJob(row.config, steps, rows, 1.0), want = RunJob(row.config, 0);
  ASSERT_TRUE(run.ok() && want.ok()) << run.status() << want.status();
  for (const StepReport& s : run->steps) EXPECT_TRUE(s.skipped);
  EXPECT_EQ(run->parameters, want->parameters);
}

// One rank's bits: schedules of one replica change the order of work, not of sums.
TEST(Pipeline, SchedulesOfOneReplicaHaveTheSameBits) {
  const absl::StatusOr<JobRun> want = RunJob(ParseLayoutRow("llama layers4 acc4").config, kLayoutSteps);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const char* words :
       {"llama layers4 gpipe pp2 acc4", "llama layers4 1f1b pp4 acc4", "llama layers4 interleaved v2 pp2 acc4",
        "llama layers4 zb-h1 pp2 acc4", "llama layers4 zb-h1 pp2 acc4 cut=E,0-1a|1b-3,H"}) {
    const absl::StatusOr<JobRun> run = RunJob(ParseLayoutRow(words).config, kLayoutSteps);
    ASSERT_TRUE(run.ok()) << run.status();
    for (const auto& [name, values] : want->parameters) {
      double worst = 0;
      for (size_t i = 0; i < values.size(); ++i)
        worst = std::max(worst, std::abs(values[i] - run->parameters.at(name)[i]));
      EXPECT_LE(worst, 1e-14) << words << " " << name;  // the norm is summed stage by stage
    }
  }
}

// Of a block that is cut, each rank has the states of its part, in a bucket of its own; a rank with both parts has two.
TEST(Pipeline, StatesOfHalvesAreWhereTheirStageIs) {
  const KernelTable kernels = CpuKernels();
  const auto plans = [&](const char* words) {
    const absl::StatusOr<Job> job = CompileTraining(ParseLayoutRow(words).config, kernels);
    EXPECT_TRUE(job.ok()) << job.status();
    const absl::StatusOr<std::vector<Plan>> plans = PlanRanks(*job, kernels);
    EXPECT_TRUE(plans.ok()) << plans.status();
    return *plans;
  };
  const std::vector<Plan> apart = plans("llama layers3 zb-h1 pp2 acc4 cut=E,0-1a|1b-2,H");
  for (const int rank : {0, 1}) {
    for (const char* name : {"blocks.1.attn_norm.weight", "blocks.1.wq", "blocks.1.wo.exp_avg"}) {
      EXPECT_EQ(apart[rank].FindState(name) != nullptr, rank == 0) << name << " on rank " << rank;
    }
    for (const char* name : {"blocks.1.ffn_norm.weight", "blocks.1.gate", "blocks.1.down.exp_avg"}) {
      EXPECT_EQ(apart[rank].FindState(name) != nullptr, rank == 1) << name << " on rank " << rank;
    }
    EXPECT_NE(apart[rank].FindState("bucket.blocks.1.params"), nullptr);
    EXPECT_EQ(apart[rank].FindState("bucket.blocks.1.1.params"), nullptr);
  }
  const std::vector<Plan> turn = plans("llama layers4 zbv pp2 dp2 acc4 zero1 cut=E,0|1a|1b-2|3,H");
  for (const char* name : {"blocks.1.wq", "blocks.1.gate", "bucket.blocks.1.params", "bucket.blocks.1.1.params"}) {
    EXPECT_NE(turn[2].FindState(name), nullptr) << name;
    EXPECT_EQ(turn[0].FindState(name), nullptr) << name;
  }
}

// A rank holds the states of its stages, and no others.
TEST(Pipeline, StatesAreWhereTheirStageIs) {
  const LayoutRow row = ParseLayoutRow("llama tied layers4 1f1b pp4 acc4 cut=E,0|1|2|3,H");
  const KernelTable kernels = CpuKernels();
  const absl::StatusOr<Job> job = CompileTraining(row.config, kernels);
  ASSERT_TRUE(job.ok()) << job.status();
  const absl::StatusOr<std::vector<Plan>> plans = PlanRanks(*job, kernels);
  ASSERT_TRUE(plans.ok()) << plans.status();
  for (int rank = 0; rank < 4; ++rank) {
    const Plan& plan = (*plans)[rank];
    for (int block = 0; block < 4; ++block) {
      const std::string name = "blocks." + std::to_string(block) + ".wq";
      EXPECT_EQ(plan.FindState(name) != nullptr, block == rank) << name << " on rank " << rank;
      EXPECT_EQ(plan.FindState(name + ".exp_avg") != nullptr, block == rank) << name << " on rank " << rank;
    }
    EXPECT_EQ(plan.FindState("embed.weight") != nullptr, rank == 0 || rank == 3);
    EXPECT_EQ(plan.FindState("head.norm.weight") != nullptr, rank == 3);
    for (const char* output : {"loss", "grad_norm", "guarded_norm"}) {
      const std::vector<Port>& outputs = plan.FindProgram("train")->outputs;
      EXPECT_TRUE(std::any_of(outputs.begin(), outputs.end(), [&](const Port& p) { return p.name == output; }));
    }
  }
}

}  // namespace
}  // namespace strata
