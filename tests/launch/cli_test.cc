#include "launch/cli/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/cli/exit_codes.h"

namespace strata {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Runs the command line with verbs that record what they got and return `result`.
struct Recorder {
  absl::Status result;
  std::string called;
  TrainOptions train;
  LaunchOptions launch;
  LaunchRankOptions launch_rank;
  PlanVerbOptions plan;
  BenchOptions bench_step, bench_gemm, bench_attention;
  BenchCollectivesOptions bench_collectives;
  DataBuildOptions data_build;
  DataInspectOptions data_inspect;
  DataVerifyOptions data_verify;
  DataBaselinesOptions data_baselines;
  TokenizerTrainOptions tokenizer_train;
  TokenizerEncodeOptions tokenizer_encode;
  TokenizerDecodeOptions tokenizer_decode;
  TokenizerVerifyOptions tokenizer_verify;
  GenerateOptions generate;
  EvalOptions eval;
  ConvertOptions convert;
  CkptListOptions ckpt_ls;
  CkptVerifyOptions ckpt_verify;
  CkptDiffOptions ckpt_diff;
  CkptReshardOptions ckpt_reshard;
  DoctorOptions doctor;
  std::string out, err;

  template <class Options>
  std::function<absl::Status(const Options&)> Record(const char* name, Options& options) {
    return [this, name, &options](const Options& got) {
      called = name;
      options = got;
      return result;
    };
  }

  int Run(std::vector<const char*> args) {
    args.insert(args.begin(), "strata");
    const Verbs verbs{Record("train", train),
                      Record("launch", launch),
                      Record("launch-rank", launch_rank),
                      Record("plan", plan),
                      Record("bench step", bench_step),
                      Record("bench gemm", bench_gemm),
                      Record("bench attention", bench_attention),
                      Record("bench collectives", bench_collectives),
                      Record("data build", data_build),
                      Record("data inspect", data_inspect),
                      Record("data verify", data_verify),
                      Record("data baselines", data_baselines),
                      Record("tokenizer train", tokenizer_train),
                      Record("tokenizer encode", tokenizer_encode),
                      Record("tokenizer decode", tokenizer_decode),
                      Record("tokenizer verify", tokenizer_verify),
                      Record("generate", generate),
                      Record("eval", eval),
                      Record("convert", convert),
                      Record("ckpt ls", ckpt_ls),
                      Record("ckpt verify", ckpt_verify),
                      Record("ckpt diff", ckpt_diff),
                      Record("ckpt reshard", ckpt_reshard),
                      Record("doctor", doctor)};
    called.clear();
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = Main(static_cast<int>(args.size()), args.data(), verbs);
    out = testing::internal::GetCapturedStdout();
    err = testing::internal::GetCapturedStderr();
    return code;
  }
};

TEST(Cli, TrainAndPlan) {
  Recorder r;
  EXPECT_EQ(r.Run({"train", "run.toml"}), 0);
  EXPECT_EQ(r.called, "train");
  EXPECT_EQ(r.train.config, "run.toml");
  EXPECT_EQ(r.train.resume, "auto");
  EXPECT_FALSE(r.train.print_config);
  EXPECT_EQ(r.Run({"train", "--resume", "never", "run.toml", "--print-config"}), 0);
  EXPECT_EQ(r.train.resume, "never");
  EXPECT_TRUE(r.train.print_config);
  EXPECT_EQ(r.Run({"bench", "step", "run.toml", "--steps", "7", "--timeline", "t.html"}), 0);
  EXPECT_EQ(r.called, "bench step");
  EXPECT_EQ(r.bench_step.steps, 7);
  EXPECT_EQ(r.bench_step.timeline, "t.html");
  EXPECT_FALSE(r.bench_step.scaling);
  EXPECT_EQ(r.Run({"bench", "step", "run.toml", "--scaling", "--one-rank", "1234.5"}), 0);
  EXPECT_TRUE(r.bench_step.scaling);
  EXPECT_EQ(r.bench_step.one_rank, 1234.5);
  EXPECT_FALSE(r.bench_step.simulate);
  EXPECT_EQ(r.Run({"bench", "step", "run.toml", "--simulate", "--durations-out", "d.csv"}), 0);
  EXPECT_TRUE(r.bench_step.simulate);
  EXPECT_EQ(r.bench_step.durations_out, "d.csv");
  EXPECT_EQ(r.Run({"bench", "gemm", "run.toml", "--simulate"}), kExitUsage);
  EXPECT_EQ(r.Run({"plan", "run.toml"}), 0);
  EXPECT_EQ(r.called, "plan");
  EXPECT_FALSE(r.plan.steps);
  EXPECT_EQ(r.Run({"train", "--set", "optim.lr=1", "run.toml", "--set", "run.name=a b"}), 0);
  EXPECT_EQ(r.train.config, "run.toml");
  EXPECT_THAT(r.train.set, ElementsAre("optim.lr=1", "run.name=a b"));
  EXPECT_EQ(r.Run({"plan", "run.toml", "--set", "parallel.dp=2"}), 0);
  EXPECT_THAT(r.plan.set, ElementsAre("parallel.dp=2"));
  EXPECT_EQ(r.Run({"plan", "run.toml", "--steps"}), 0);
  EXPECT_TRUE(r.plan.steps);
}

TEST(Cli, BenchCollectives) {
  Recorder r;
  EXPECT_EQ(r.Run({"bench", "collectives"}), 0);
  EXPECT_EQ(r.called, "bench collectives");
  EXPECT_EQ(r.bench_collectives.ranks, 2);
  EXPECT_TRUE(r.bench_collectives.trace);
  EXPECT_EQ(r.bench_collectives.comm, CommConfig{});
  EXPECT_EQ(
      r.Run({"bench",    "collectives", "-n",        "3",          "--device", "cpu",       "--dtype",     "bfloat16",
             "--min",    "1KiB",        "--max",     "1MiB",       "--factor", "2",         "--iters",     "7",
             "--warmup", "1",           "--only",    "all-reduce", "--only",   "send-recv", "--transport", "host",
             "--launch", "direct",      "--buffers", "symmetric",  "--ctas",   "8",         "--no-watch"}),
      0);
  const BenchCollectivesOptions& o = r.bench_collectives;
  EXPECT_EQ(o.ranks, 3);
  EXPECT_EQ(o.device, "cpu");
  EXPECT_EQ(o.dtype, "bfloat16");
  EXPECT_EQ(o.min, "1KiB");
  EXPECT_EQ(o.max, "1MiB");
  EXPECT_EQ(o.factor, 2);
  EXPECT_EQ(o.iterations, 7);
  EXPECT_EQ(o.warmup, 1);
  EXPECT_THAT(o.only, ElementsAre("all-reduce", "send-recv"));
  EXPECT_EQ(o.comm.transport, Transport::kHost);
  EXPECT_EQ(o.comm.launch, NcclLaunch::kDirect);
  EXPECT_EQ(o.comm.buffers, NcclBuffers::kSymmetric);
  EXPECT_EQ(o.comm.nccl_ctas, 8);
  EXPECT_FALSE(o.trace);
  EXPECT_EQ(r.Run({"bench", "collectives", "--only", "all-at-once"}), 64);
}

TEST(Cli, PlanOfSchedules) {
  Recorder r;
  EXPECT_EQ(r.Run({"plan",     "run.toml", "--schedule",  "all",    "--pp",      "8",    "--virtual",   "2",
                   "--tflops", "400",      "--link-gbps", "25",     "--link-us", "3",    "--durations", "d.csv",
                   "--gantt",  "g.html",   "--trace",     "t.json", "--dump",    "s.csv"}),
            0);
  EXPECT_EQ(r.plan.schedule, "all");
  EXPECT_EQ(r.plan.pp, 8);
  EXPECT_EQ(r.plan.virtual_stages, 2);
  EXPECT_EQ(r.plan.tflops, 400);
  EXPECT_EQ(r.plan.link_gbps, 25);
  EXPECT_EQ(r.plan.link_us, 3);
  EXPECT_EQ(r.plan.durations, "d.csv");
  EXPECT_EQ(r.plan.gantt, "g.html");
  EXPECT_EQ(r.plan.trace, "t.json");
  EXPECT_EQ(r.plan.dump, "s.csv");
  EXPECT_EQ(r.Run({"plan", "run.toml", "--gantt", "g.html"}), kExitUsage);
  EXPECT_THAT(r.err, HasSubstr("--gantt requires --schedule"));
  EXPECT_EQ(r.Run({"plan", "run.toml", "--schedule", "all", "--pp", "0"}), kExitUsage);
}

TEST(Cli, Launch) {
  Recorder r;
  EXPECT_EQ(r.Run({"launch", "--", "train", "run.toml", "--set=a.b=1"}), 0);
  EXPECT_EQ(r.called, "launch");
  EXPECT_THAT(r.launch.command, ElementsAre("train", "run.toml", "--set=a.b=1"));
  EXPECT_EQ(r.launch.ranks, 0);
  EXPECT_EQ(r.launch.show, "0");
  EXPECT_EQ(r.launch.grace, 120);
  EXPECT_FALSE(r.launch.dry_run);
  EXPECT_EQ(r.Run({"launch", "-n", "4", "--log-dir", "logs", "--show", "all", "--grace", "5", "--dry-run", "--",
                   "train", "run.toml"}),
            0);
  EXPECT_EQ(r.launch.ranks, 4);
  EXPECT_EQ(r.launch.log_dir, "logs");
  EXPECT_EQ(r.launch.show, "all");
  EXPECT_EQ(r.launch.grace, 5);
  EXPECT_TRUE(r.launch.dry_run);
  EXPECT_EQ(r.Run({"launch-rank", "--log-dir", "logs", "--", "train", "run.toml", "--resume", "never"}), 0);
  EXPECT_THAT(r.launch_rank.command, ElementsAre("train", "run.toml", "--resume", "never"));
}

TEST(Cli, TheCommandOfALaunchIsATrainCommand) {
  const auto train = ParseTrain({"train", "run.toml", "--resume", "never", "--set", "a.b=1"});
  ASSERT_TRUE(train.ok()) << train.status();
  EXPECT_EQ(train->config, "run.toml");
  EXPECT_EQ(train->resume, "never");
  EXPECT_THAT(train->set, ElementsAre("a.b=1"));
  for (const std::vector<std::string>& wrong :
       {std::vector<std::string>{}, {"plan", "run.toml"}, {"train"}, {"train", "run.toml", "--resum", "never"}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseTrain(wrong).status())) << testing::PrintToString(wrong);
  }
}

TEST(Cli, Data) {
  Recorder r;
  EXPECT_EQ(r.Run({"data", "build", "--text", "a.txt", "b.txt", "--out", "dir", "--vocab", "2048"}), 0);
  EXPECT_EQ(r.called, "data build");
  EXPECT_THAT(r.data_build.text, ElementsAre("a.txt", "b.txt"));
  EXPECT_EQ(r.data_build.out, "dir");
  EXPECT_EQ(r.data_build.vocab, 2048);
  EXPECT_EQ(r.data_build.valid, 0.05);
  EXPECT_FALSE(r.data_build.force);
  EXPECT_EQ(r.Run({"data", "build", "--text", "a", "--out", "d", "--tokenizer", "t", "--valid", "0.1", "--force"}), 0);
  EXPECT_EQ(r.data_build.tokenizer, "t");
  EXPECT_EQ(r.data_build.vocab, 0);
  EXPECT_EQ(r.data_build.valid, 0.1);
  EXPECT_TRUE(r.data_build.force);
  EXPECT_EQ(r.Run({"data", "build", "--jsonl", "a", "b", "--field", "body", "--out", "d", "--vocab", "300"}), 0);
  EXPECT_THAT(r.data_build.jsonl, ElementsAre("a", "b"));
  EXPECT_EQ(r.data_build.field, "body");
  EXPECT_EQ(r.Run({"data", "build", "--out", "d", "--vocab", "300"}), 64);
  EXPECT_EQ(r.Run({"data", "inspect", "dir/train"}), 0);
  EXPECT_EQ(r.called, "data inspect");
  EXPECT_EQ(r.data_inspect.path, "dir/train");
  EXPECT_EQ(r.data_inspect.begin, r.data_inspect.end);
  EXPECT_EQ(r.Run({"data", "inspect", "p", "--documents", "3:12", "--tokenizer", "t"}), 0);
  EXPECT_EQ(r.data_inspect.begin, 3);
  EXPECT_EQ(r.data_inspect.end, 12);
  EXPECT_EQ(r.data_inspect.tokenizer, "t");
  EXPECT_FALSE(r.data_inspect.pieces);
  EXPECT_EQ(r.Run({"data", "inspect", "p", "--documents", "3:12", "--pieces"}), 0);
  EXPECT_TRUE(r.data_inspect.pieces);
  for (const char* wrong : {"3", "3:", ":3", "3:3", "-1:3", "3:x", ""}) {
    EXPECT_EQ(r.Run({"data", "inspect", "p", "--documents", wrong}), 64) << wrong;
  }
  EXPECT_EQ(r.Run({"data", "verify", "dir"}), 0);
  EXPECT_EQ(r.called, "data verify");
  EXPECT_EQ(r.data_verify.path, "dir");
  EXPECT_EQ(r.Run({"data", "baselines", "--data", "dir"}), 0);
  EXPECT_EQ(r.called, "data baselines");
  EXPECT_EQ(r.data_baselines.data, "dir");
}

TEST(Cli, Tokenizer) {
  Recorder r;
  EXPECT_EQ(r.Run({"tokenizer", "train", "--text", "a", "--out", "t.model", "--vocab", "64"}), 0);
  EXPECT_EQ(r.called, "tokenizer train");
  EXPECT_EQ(r.tokenizer_train.vocab, 64);
  EXPECT_EQ(r.Run({"tokenizer", "encode", "--tokenizer", "t.model", "It is a truth"}), 0);
  EXPECT_EQ(r.called, "tokenizer encode");
  EXPECT_EQ(r.tokenizer_encode.text, "It is a truth");
  EXPECT_EQ(r.Run({"tokenizer", "decode", "--tokenizer", "t.model", "5", "6"}), 0);
  EXPECT_EQ(r.called, "tokenizer decode");
  EXPECT_THAT(r.tokenizer_decode.ids, ElementsAre(5, 6));
  EXPECT_FALSE(r.tokenizer_encode.bos || r.tokenizer_encode.pieces);
  EXPECT_EQ(r.Run({"tokenizer", "encode", "--tokenizer", "d", "--bos", "--pieces", "It"}), 0);
  EXPECT_TRUE(r.tokenizer_encode.bos && r.tokenizer_encode.pieces);
  EXPECT_EQ(r.Run({"tokenizer", "verify", "--tokenizer", "d", "--text", "a", "b", "--reference", "r.jsonl"}), 0);
  EXPECT_EQ(r.called, "tokenizer verify");
  EXPECT_EQ(r.tokenizer_verify.tokenizer, "d");
  EXPECT_THAT(r.tokenizer_verify.text, ElementsAre("a", "b"));
  EXPECT_THAT(r.tokenizer_verify.reference, ElementsAre("r.jsonl"));
}

TEST(Cli, GenerateAndCkpt) {
  Recorder r;
  EXPECT_EQ(r.Run({"generate", "run.toml", "--prompt", "It is", "--tokens", "100"}), 0);
  EXPECT_EQ(r.called, "generate");
  EXPECT_EQ(r.generate.temperature, 1.0);
  EXPECT_EQ(r.generate.top_k, 0);
  EXPECT_EQ(r.Run({"generate", "run.toml", "--prompt", "It is", "--tokens", "5", "--temperature", "0.8", "--top-k",
                   "40", "--top-p", "0.9", "--set", "model.seq=8", "--seed", "7", "--checkpoint", "dir"}),
            0);
  EXPECT_EQ(r.generate.prompt, "It is");
  EXPECT_EQ(r.generate.tokens, 5);
  EXPECT_EQ(r.generate.temperature, 0.8);
  EXPECT_EQ(r.generate.top_k, 40);
  EXPECT_EQ(r.generate.top_p, 0.9);
  EXPECT_THAT(r.generate.set, ElementsAre("model.seq=8"));
  EXPECT_EQ(r.generate.seed, 7);
  EXPECT_EQ(r.generate.checkpoint, "dir");
  EXPECT_EQ(r.Run({"convert", "hf:model", "out", "--verify"}), 0);
  EXPECT_EQ(r.called, "convert");
  EXPECT_EQ(r.convert.from, "hf:model");
  EXPECT_EQ(r.convert.to, "out");
  EXPECT_TRUE(r.convert.verify);
  EXPECT_EQ(r.Run({"ckpt", "ls", "dir"}), 0);
  EXPECT_EQ(r.called, "ckpt ls");
  EXPECT_EQ(r.ckpt_ls.folder, "dir");
  EXPECT_EQ(r.Run({"ckpt", "verify", "dir2"}), 0);
  EXPECT_EQ(r.called, "ckpt verify");
  EXPECT_EQ(r.ckpt_verify.folder, "dir2");
}

TEST(Cli, EvalAndCkptDiff) {
  Recorder r;
  EXPECT_EQ(r.Run({"eval", "run.toml"}), 0);
  EXPECT_EQ(r.called, "eval");
  EXPECT_EQ(r.eval.checkpoint, "");
  EXPECT_EQ(r.Run({"eval", "run.toml", "--checkpoint", "dir", "--data", "d/test", "--set", "eval.batches=2"}), 0);
  EXPECT_EQ(r.eval.checkpoint, "dir");
  EXPECT_EQ(r.eval.data, "d/test");
  EXPECT_THAT(r.eval.set, ElementsAre("eval.batches=2"));
  EXPECT_EQ(r.Run({"ckpt", "diff", "x", "y"}), 0);
  EXPECT_EQ(r.called, "ckpt diff");
  EXPECT_EQ(r.ckpt_diff.a, "x");
  EXPECT_EQ(r.ckpt_diff.b, "y");
  EXPECT_EQ(r.Run({"ckpt", "reshard", "x", "y"}), 0);
  EXPECT_EQ(r.called, "ckpt reshard");
  EXPECT_EQ(r.ckpt_reshard.from, "x");
  EXPECT_EQ(r.ckpt_reshard.to, "y");
  EXPECT_EQ(r.ckpt_reshard.files, 1);
  EXPECT_EQ(r.Run({"ckpt", "reshard", "x", "y", "--files", "8"}), 0);
  EXPECT_EQ(r.ckpt_reshard.files, 8);
  EXPECT_EQ(r.Run({"ckpt", "reshard", "x", "y", "--like", "j.toml", "--set", "parallel.tp=2"}), 0);
  EXPECT_EQ(r.ckpt_reshard.like, "j.toml");
  EXPECT_THAT(r.ckpt_reshard.set, ElementsAre("parallel.tp=2"));
}

TEST(Cli, Doctor) {
  Recorder r;
  EXPECT_EQ(r.Run({"doctor"}), 0);
  EXPECT_EQ(r.called, "doctor");
  EXPECT_EQ(r.doctor.folder, ".");
  EXPECT_EQ(r.Run({"doctor", "--dir", "/data"}), 0);
  EXPECT_EQ(r.doctor.folder, "/data");
}

TEST(Cli, UsageErrorsExit64AndRunNothing) {
  Recorder r;
  const std::vector<std::vector<const char*>> wrong = {
      {},
      {"fly"},
      {"train"},
      {"launch"},
      {"launch", "-n", "0", "--", "train", "a.toml"},
      {"launch", "--show", "some", "--", "train", "a.toml"},
      {"train", "a.toml", "b.toml"},
      {"train", "a.toml", "--resum", "never"},
      {"data"},
      {"data", "build", "--text", "a", "--out", "d"},  // neither --vocab nor --tokenizer
      {"data", "build", "--text", "a", "--out", "d", "--vocab", "many"},
      {"data", "build", "--text", "a", "--out", "d", "--vocab", "64", "--valid", "1.5"},
      {"generate", "a.toml", "--prompt", "x"},
      {"generate", "a.toml", "--prompt", "x", "--tokens", "0"},
      {"convert", "hf:model"},
      {"ckpt", "diff", "one"},
      {"ckpt", "reshard", "one"},
      {"ckpt", "reshard", "one", "two", "--files", "0"},
      {"ckpt", "reshard", "one", "two", "--set", "parallel.tp=2"},
      {"ckpt", "reshard", "one", "two", "--like", "j.toml", "--files", "2"},
      {"tokenizer", "decode", "--tokenizer", "t", "five"},
  };
  for (const std::vector<const char*>& args : wrong) {
    EXPECT_EQ(r.Run(args), kExitUsage) << testing::PrintToString(args);
    EXPECT_EQ(r.called, "") << testing::PrintToString(args);
    EXPECT_NE(r.err, "") << testing::PrintToString(args);
  }
  r.Run({"data", "build", "--text", "a", "--out", "d"});
  EXPECT_THAT(r.err, HasSubstr("--vocab or --tokenizer"));
}

TEST(Cli, HelpIsNoError) {
  Recorder r;
  EXPECT_EQ(r.Run({"--help"}), 0);
  EXPECT_THAT(r.out, HasSubstr("generate"));
  EXPECT_EQ(r.Run({"train", "--help"}), 0);
  EXPECT_THAT(r.out, HasSubstr("auto|never|DIR"));
  EXPECT_EQ(r.called, "");
}

TEST(Cli, ExitCodeOfWhatTheVerbReturns) {
  const std::pair<absl::Status, int> kCases[] = {
      {absl::OkStatus(), 0},
      {absl::InvalidArgumentError("x"), 64},
      {absl::NotFoundError("x"), 64},
      {absl::AlreadyExistsError("x"), 64},
      {absl::CancelledError("x"), 75},
      {absl::DeadlineExceededError("x"), 124},
      {absl::UnavailableError("x"), 69},
      {WithExitCode(absl::UnavailableError("x"), 137), 137},
      {absl::DataLossError("x"), 1},
      {absl::InternalError("x"), 1},
  };
  for (const auto& [status, code] : kCases) {
    Recorder r{.result = status};
    EXPECT_EQ(r.Run({"train", "run.toml"}), code) << status;
    EXPECT_EQ(ExitCode(status), code);
  }
}

TEST(Cli, ErrorsGoToStderrAndConfigErrorsAreUntouched) {
  Recorder r{.result = absl::UnavailableError("rank 3 lost")};
  r.Run({"train", "run.toml"});
  EXPECT_EQ(r.err, "error: rank 3 lost\n");
  EXPECT_EQ(r.out, "");
  r.result = absl::InvalidArgumentError("error[E0107]: unknown key\n  --> run.toml:1:1");
  r.Run({"train", "run.toml"});
  EXPECT_EQ(r.err, "error[E0107]: unknown key\n  --> run.toml:1:1\n");
}

}  // namespace
}  // namespace strata
