// Every example config trains: a few steps, on small token files in place of the novel's.

#include <gtest/gtest.h>

#include <filesystem>

#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "launch/job/rank_runner.h"
#include "parallel/comm/thread_world.h"
#include "tests/launch/small_run.h"

namespace strata {
namespace {

Overrides OnSmallData(const SmallRun& run) {
  const std::string tokens = run.dir().path("train");
  return {"data.train=" + tokens, "data.valid=" + tokens, "tokenizer.path=",   "run.out=" + run.out(),
          "schedule.steps=3",     "schedule.warmup=1",    "batch.tokens=1024", "batch.micro=4",
          "batch.accumulate=0",   "log.every=1",          "eval.batches=1"};
}

TEST(Examples, Train) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(STRATA_SOURCE_DIR "/examples")) {
    if (entry.path().extension() != ".toml") continue;
    ++found;
    SCOPED_TRACE(entry.path().string());
    const SmallRun run;
    const absl::StatusOr<LoadedJob> job =
        LoadJobConfig(Env::Posix(), entry.path().string(), {.data = true}, OnSmallData(run));
    ASSERT_TRUE(job.ok()) << job.status().message();
    testing::internal::CaptureStdout();
    const absl::Status trained = Train(Env::Posix(), *job, {.resume = "never"});
    testing::internal::GetCapturedStdout();
    ASSERT_TRUE(trained.ok()) << trained;
    const std::vector<nlohmann::json> valid = run.Metrics("valid_loss");
    EXPECT_LT(valid.back()["valid_loss"].get<double>(), valid.front()["valid_loss"].get<double>());
  }
  EXPECT_GE(found, 4);
}

absl::StatusOr<std::vector<double>> Logits(ModelArch arch, const std::vector<int32_t>& tokens) {
  JobConfig c;
  c.model = {.arch = arch, .vocab = 32, .layers = 2, .dim = 16, .heads = 4, .kv_heads = 4, .ffn = 24, .seq = 8};
  c.precision.compute = DType::kF64;
  const KernelTable kernels = CpuKernels();
  ASSIGN_OR_RETURN(const Job job, CompileGeneration(c, kernels));
  ASSIGN_OR_RETURN(std::vector<Plan> plans, PlanRanks(job, kernels));
  std::vector<double> logits;
  RETURN_IF_ERROR(RunRanks(1, [&](World& world) -> absl::Status {
    CpuDevice device;
    ASSIGN_OR_RETURN(auto runner,
                     RankRunner::Create(job, std::make_shared<const Plan>(plans[0]), world, device, nullptr));
    RETURN_IF_ERROR(runner->InitParameters(1));
    ASSIGN_OR_RETURN(logits, runner->NextLogits(tokens));
    return runner->Close();
  }));
  return logits;
}

TEST(Generation, Gpt2DependsOnAllTokensAndTheirOrder) {
  const auto a = Logits(ModelArch::kGpt2, {1, 2, 3}), again = Logits(ModelArch::kGpt2, {1, 2, 3}),
             b = Logits(ModelArch::kGpt2, {2, 1, 3});
  ASSERT_TRUE(a.ok() && again.ok() && b.ok()) << a.status();
  EXPECT_EQ(a->size(), 32u);
  EXPECT_EQ(*a, *again);
  EXPECT_NE(*a, *b);
}

TEST(Generation, IsRefusedOfBert) {
  const absl::Status s = Logits(ModelArch::kBert, {1, 2, 3}).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(s.message().find("model.arch = \"bert\""), std::string::npos) << s;
}

}  // namespace
}  // namespace strata
