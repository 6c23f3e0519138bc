#pragma once
// What each verb of the command line does. Output goes to stdout, logs and errors to stderr.

#include "launch/cli/cli.h"

namespace strata {

absl::Status RunTrain(const TrainOptions& options);
absl::Status RunLaunch(const LaunchOptions& options);
absl::Status RunLaunchRank(const LaunchRankOptions& options);
absl::Status RunPlan(const PlanVerbOptions& options);
absl::Status RunPlanSchedule(const PlanVerbOptions& options);
absl::Status RunBenchStep(const BenchOptions& options);
absl::Status RunBenchGemm(const BenchOptions& options);
absl::Status RunBenchAttention(const BenchOptions& options);
absl::Status RunBenchCollectives(const BenchCollectivesOptions& options);
absl::Status RunDataBuild(const DataBuildOptions& options);
absl::Status RunDataInspect(const DataInspectOptions& options);
absl::Status RunDataVerify(const DataVerifyOptions& options);
absl::Status RunDataBaselines(const DataBaselinesOptions& options);
absl::Status RunTokenizerTrain(const TokenizerTrainOptions& options);
absl::Status RunTokenizerEncode(const TokenizerEncodeOptions& options);
absl::Status RunTokenizerDecode(const TokenizerDecodeOptions& options);
absl::Status RunTokenizerVerify(const TokenizerVerifyOptions& options);
absl::Status RunGenerate(const GenerateOptions& options);
absl::Status RunEval(const EvalOptions& options);
absl::Status RunConvert(const ConvertOptions& options);
absl::Status RunCkptList(const CkptListOptions& options);
absl::Status RunCkptVerify(const CkptVerifyOptions& options);
absl::Status RunCkptDiff(const CkptDiffOptions& options);
absl::Status RunCkptReshard(const CkptReshardOptions& options);
absl::Status RunDoctor(const DoctorOptions& options);

}  // namespace strata
