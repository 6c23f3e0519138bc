// Recompute changes memory and nothing else: same bits in every dtype, and the activations of a block are what the formulas
// say, exactly.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/job/compile.h"
#include "launch/job/memory_limit.h"
#include "tests/testing/small_job.h"
#include "tests/testing/step_trace.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::JobRun;
using testing::RunJob;
using testing::SmallJobOf;

constexpr int kSteps = 3;

JobConfig Recomputing(JobConfig c, Recompute level, int64_t blocks = 0) {
  c.memory.recompute = level;
  c.memory.recompute_blocks = blocks;
  return c;
}

void ExpectSameBits(const JobConfig& config, const std::string& what) {
  const absl::StatusOr<JobRun> want = RunJob(config, kSteps);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const Recompute level : {Recompute::kSelective, Recompute::kBlock}) {
    for (const int64_t blocks : {0, 1}) {
      const absl::StatusOr<JobRun> run = RunJob(Recomputing(config, level, blocks), kSteps);
      ASSERT_TRUE(run.ok()) << run.status();
      const std::string here = what + " " + std::string(kRecomputeNames[static_cast<size_t>(level)]);
      for (int s = 0; s < kSteps; ++s) {
        EXPECT_EQ(run->steps[s].loss, want->steps[s].loss) << here;
        EXPECT_EQ(run->steps[s].grad_norm, want->steps[s].grad_norm) << here;
      }
      EXPECT_EQ(run->parameters, want->parameters) << here;
    }
  }
}

class RecomputeBits : public ::testing::TestWithParam<ModelArch> {};
INSTANTIATE_TEST_SUITE_P(Archs, RecomputeBits, ::testing::Values(ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert),
                         [](const auto& info) { return std::string(kModelArchNames[static_cast<int>(info.param)]); });

TEST_P(RecomputeBits, AreThoseWithout) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
    JobConfig one = SmallJobOf(GetParam(), 1, 1, 2), many = SmallJobOf(GetParam(), 2, 2, 2);
    one.precision.compute = many.precision.compute = dtype;
    many.parallel.sequence_parallel = true;
    ExpectSameBits(one, absl::StrFormat("%s one rank", Name(dtype)));
    ExpectSameBits(many, absl::StrFormat("%s four ranks", Name(dtype)));
  }
}

// Every kernel of a plan that recomputes repeats one of the plan that does not: on the same bytes, with the same result.
TEST_P(RecomputeBits, EveryKernelRepeatsAnother) {
  JobConfig config = SmallJobOf(GetParam(), 1, 1, 2);
  config.precision.compute = DType::kBF16;
  const auto trace = [&](Recompute level, uint64_t rows, testing::StepTrace& t) {
    const testing::TableRows table(config.model.vocab, rows);
    const int steps[] = {1, 2};
    const absl::StatusOr<JobRun> run =
        RunJob(Recomputing(config, level), steps, table, std::numeric_limits<double>::infinity(), CpuKernels(), nullptr,
               nullptr, &t);
    EXPECT_TRUE(run.ok()) << run.status();
  };
  testing::StepTrace plain, recomputed, other;
  trace(Recompute::kNone, 3, plain);
  trace(Recompute::kBlock, 3, recomputed);
  EXPECT_GT(recomputed.entries().size(), plain.entries().size());
  EXPECT_EQ(FirstDifferences(plain, recomputed), "");
  trace(Recompute::kNone, 4, other);
  EXPECT_THAT(FirstDifferences(plain, other, 1), HasSubstr("of training step 1, embed: embedding  i32[4, 8]@"));
}

TEST(StepTrace, NamesTheFirstKernelThatMakesOtherBytesOfTheSameOperands) {
  using Entry = testing::StepTrace::Entry;
  testing::StepTrace a, b;
  a.Add({.step = 1, .scope = "embed", .what = "embedding @0", .name = "embedding", .in = 1, .out = 2});
  a.Add({.step = 1, .scope = "head", .what = "linear @0", .name = "linear", .in = 2, .out = 3});
  for (const Entry& e : a.entries()) b.Add(e);
  EXPECT_EQ(FirstDifferences(a, b), "");
  b.Add({.step = 1, .scope = "head", .what = "fused @256", .name = "fused", .in = 9, .out = 4});
  b.Add({.step = 2, .scope = "head", .what = "linear @256", .name = "linear", .in = 9, .out = 4});
  EXPECT_EQ(FirstDifferences(a, b), "");
  b.Add({.step = 1, .scope = "head", .what = "linear @256", .name = "linear", .in = 9, .out = 4});
  EXPECT_EQ(FirstDifferences(a, b), "kernel 4 of training step 1, head: linear @256 has operands of its own\n");
  b.Add({.step = 1, .scope = "head again", .what = "linear @256", .name = "linear", .in = 2, .out = 4});
  EXPECT_EQ(FirstDifferences(a, b),
            "kernel 5 of training step 1, head again: linear @256\n"
            "  makes other bytes of the same operands than head: linear @0\n");
}

// Bytes that forward keeps for backward.
absl::StatusOr<int64_t> KeptBytes(const JobConfig& config) {
  const KernelTable kernels = CpuKernels();
  ASSIGN_OR_RETURN(const Job job, CompileTraining(config, kernels));
  ASSIGN_OR_RETURN(const Plan plan, PlanRank(job, 0, kernels));
  for (const Region& r : plan.regions) {
    if (r.name == "train activations") return r.bytes;
  }
  return absl::InternalError("no such region");
}

// Of one block: what one more block adds.
int64_t KeptByABlock(JobConfig config) {
  config.model.layers = 3;
  const absl::StatusOr<int64_t> three = KeptBytes(config);
  config.model.layers = 4;
  const absl::StatusOr<int64_t> four = KeptBytes(config);
  EXPECT_TRUE(three.ok() && four.ok()) << three.status() << four.status();
  return *four - *three;
}

struct Sizes {
  int64_t b, s, e, h, kv, f;
};
JobConfig Sized(const Sizes& z, ModelArch arch, int64_t tp, bool sequence, bool keep) {
  JobConfig c = SmallJobOf(arch, 1, tp, 1);
  c.model.dim = z.e, c.model.heads = z.h, c.model.ffn = z.f, c.model.seq = z.s;
  c.model.kv_heads = arch == ModelArch::kLlama ? z.kv : z.h;
  c.batch = {.tokens = z.b * z.s, .micro = z.b, .accumulate = 1};
  c.precision.compute = DType::kBF16;
  c.parallel.sequence_parallel = sequence;
  c.parallel.keep_gathered = keep;
  return c;
}

constexpr Sizes kSizes = {2, 128, 64, 8, 4, 192};

// Llama in bf16, t tensor-parallel ranks, in tokens T = b s: kept are 2 bytes an element of
//   norm inputs x, x'  E each, sharded by sequence parallelism  | norm outputs E each, whole where gathered and kept
//   q, o  E / t   k, v  kv / t   gate, up, swiglu  f / t
// and 4 bytes of rstd, 1 a norm, and of the log-sum-exp of attention, heads / t.
TEST(RecomputeMemory, LlamaFollowsTheFormulas) {
  const auto [b, s, e, h, kv_heads, f] = kSizes;
  const int64_t tokens = b * s, kv = kv_heads * e / h;
  for (const int64_t t : {1, 2, 4}) {
    for (const bool sequence : {false, true}) {
      for (const bool keep : {false, true}) {
        if (t == 1 && (sequence || keep)) continue;
        const JobConfig c = Sized(kSizes, ModelArch::kLlama, t, sequence, keep);
        const int64_t share = sequence ? t : 1, gathered = sequence && !keep ? t : 1;
        const int64_t products = tokens * (2 * e + 2 * kv + 2 * f) / t, lse = 4 * tokens * h / t;
        const int64_t inputs = 2 * tokens * e / share;
        const int64_t outputs = 2 * tokens * e / gathered, rstd = 4 * 2 * tokens / share;
        const std::string what = absl::StrFormat("tp %d sequence %d keep %d", t, sequence, keep);
        EXPECT_EQ(KeptByABlock(c), 2 * (inputs + outputs + products + tokens * f / t) + rstd + lse) << what;
        // Gathered outputs are results of collectives, and kept.
        EXPECT_EQ(KeptByABlock(Recomputing(c, Recompute::kSelective)),
                  2 * (inputs + (sequence && keep ? outputs : 0) + products) + lse)
            << what;
        EXPECT_EQ(KeptByABlock(Recomputing(c, Recompute::kBlock)), 2 * tokens * e / share) << what;
      }
    }
  }
}

TEST(RecomputeMemory, OnlyBlockInputsAreKept) {
  for (const ModelArch arch : {ModelArch::kGpt2, ModelArch::kBert}) {
    for (const int64_t t : {1, 2}) {
      const JobConfig c = Sized(kSizes, arch, t, t > 1, false);
      const int64_t input = 2 * kSizes.b * kSizes.s * kSizes.e / t;
      EXPECT_EQ(KeptByABlock(Recomputing(c, Recompute::kBlock)), input);
      EXPECT_LT(KeptByABlock(Recomputing(c, Recompute::kSelective)), KeptByABlock(c));
    }
  }
}

// Beside what is kept, backward holds one block: the peak does not grow with the number of blocks.
TEST(RecomputeMemory, OneBlockIsRecomputedAtATime) {
  const auto transient = [](int64_t layers) {
    JobConfig c = Recomputing(Sized(kSizes, ModelArch::kLlama, 1, false, false), Recompute::kBlock);
    c.model.layers = layers;
    const KernelTable kernels = CpuKernels();
    const absl::StatusOr<Job> job = CompileTraining(c, kernels);
    EXPECT_TRUE(job.ok()) << job.status();
    const absl::StatusOr<Plan> plan = PlanRank(*job, 0, kernels);
    EXPECT_TRUE(plan.ok()) << plan.status();
    for (const Region& r : plan->regions) {
      if (r.name == "train transient") return r.bytes;
    }
    return int64_t{-1};
  };
  EXPECT_GT(transient(2), 0);
  EXPECT_EQ(transient(2), transient(6));
}

int64_t ArenaOf(const JobConfig& config) {
  const KernelTable kernels = CpuKernels();
  const absl::StatusOr<Job> job = CompileTraining(config, kernels);
  EXPECT_TRUE(job.ok()) << job.status();
  const absl::StatusOr<Plan> plan = PlanRank(*job, 0, kernels);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan->arena_bytes[0];
}

RecomputeBlocks Chosen(JobConfig config, int64_t limit) {
  config.memory.limit = absl::StrFormat("%dB", limit);
  config.memory.recompute = Recompute::kAuto;
  const absl::StatusOr<Job> job = CompileTraining(config, CpuKernels());
  EXPECT_TRUE(job.ok()) << job.status();
  return job.ok() ? job->recompute : RecomputeBlocks{-1, -1};
}

TEST(MemoryLimit, AutoIsTheLeastRecomputeThatFits) {
  JobConfig c = Sized(kSizes, ModelArch::kLlama, 1, false, false);
  c.model.layers = 6;
  const int64_t none = ArenaOf(c), four = ArenaOf(Recomputing(c, Recompute::kSelective, 4)),
                selective = ArenaOf(Recomputing(c, Recompute::kSelective)),
                block = ArenaOf(Recomputing(c, Recompute::kBlock));
  ASSERT_GT(none, four);
  ASSERT_GT(four, selective);
  ASSERT_GT(selective, block);
  EXPECT_EQ(Chosen(c, none), (RecomputeBlocks{0, 0}));
  EXPECT_EQ(Chosen(c, none - 1), (RecomputeBlocks{0, 1}));
  EXPECT_EQ(Chosen(c, four), (RecomputeBlocks{0, 4}));
  EXPECT_EQ(Chosen(c, four - 1), (RecomputeBlocks{0, 5}));
  EXPECT_EQ(Chosen(c, selective - 1), (RecomputeBlocks{2, 4}));  // of {1, 5}, backward needs more than it saves
  EXPECT_EQ(Chosen(c, block), (RecomputeBlocks{6, 0}));
}

TEST(MemoryLimit, WhatDoesNotFitSaysWhatWould) {
  JobConfig c = Sized(kSizes, ModelArch::kLlama, 2, false, false);
  c.model.layers = 6;
  const int64_t sequence = ArenaOf([&] {
    JobConfig x = c;
    x.parallel.sequence_parallel = true;
    return x;
  }());
  c.memory.limit = absl::StrFormat("%dB", sequence);
  const absl::StatusOr<Job> job = CompileTraining(c, CpuKernels());
  ASSERT_TRUE(job.ok()) << job.status();
  const absl::Status s = PlanRanks(*job, CpuKernels()).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(s.message()), HasSubstr("the plan of a rank needs"));
  EXPECT_THAT(std::string(s.message()), HasSubstr("train activations"));
  EXPECT_THAT(std::string(s.message()), HasSubstr("each of these fits:\n  parallel.sequence_parallel = true"));
  EXPECT_THAT(std::string(s.message()), HasSubstr("memory.recompute = \"block\""));

  c.memory.limit = "1KiB";
  c.memory.recompute = Recompute::kAuto;
  const absl::Status none = CompileTraining(c, CpuKernels()).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(none.message()), HasSubstr("with every block recomputed"));
  EXPECT_THAT(std::string(none.message()), HasSubstr("no change of one key fits"));
}

TEST(MemoryLimit, SaysWhatWasChosen) {
  EXPECT_EQ(ToString({}, 12), "none");
  EXPECT_EQ(ToString({0, 12}, 12), "selective in every block");
  EXPECT_EQ(ToString({0, 3}, 12), "selective in the first 3 of 12 blocks");
  EXPECT_EQ(ToString({3, 9}, 12), "block in the first 3 of 12 blocks, selective in the next 9");
  EXPECT_EQ(ToString({12, 0}, 12), "block in every block");
}

}  // namespace
}  // namespace strata
