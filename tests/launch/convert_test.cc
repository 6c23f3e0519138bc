// Models that Hugging Face transformers wrote (tests/hf/make_fixtures.py): imported, run, trained and exported again. What
// transformers computed with them is in their expected.json.

#include "launch/convert/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/safetensors_folder.h"
#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "launch/config/load_config.h"
#include "launch/convert/checkpoint_weights.h"
#include "launch/data/indexed_dataset.h"
#include "launch/job/hf_weights.h"
#include "launch/job/rank_runner.h"
#include "launch/job/trainer.h"
#include "models/hf/hf_export.h"
#include "models/hf/kept_files.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Json = nlohmann::json;

std::string Fixture(const std::string& name) { return STRATA_SOURCE_DIR "/tests/hf/fixtures/" + name; }
std::string Text(const std::string& path) { return ReadText(Env::Posix(), path).value(); }

// The rows that transformers was given.
class FixtureRows final : public RowSource {
 public:
  explicit FixtureRows(const Json& expected) : steps_(expected["rows"]) {}
  absl::Status Row(int64_t index, const RowSpans& row) const override {
    const Json& step = steps_[static_cast<size_t>(index) / batch()];
    const size_t r = static_cast<size_t>(index) % batch();
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      row.tokens[i] = step["tokens"][r][i];
      row.targets[i] = step["targets"][r][i];
      row.weights[i] = step["weights"][r][i];
      row.document_starts[i] = 0;
    }
    return absl::OkStatus();
  }
  size_t batch() const { return steps_[0]["tokens"].size(); }
  int64_t seq() const { return static_cast<int64_t>(steps_[0]["tokens"][0].size()); }

 private:
  const Json steps_;
};

struct Layout {
  int64_t dp, tp;
};

JobConfig JobOf(const HfModel& model, const Json& expected, DType compute, Layout layout) {
  const FixtureRows rows(expected);
  JobConfig c;
  c.model = model.config();
  c.model.seq = rows.seq();
  c.precision.compute = compute;
  c.parallel.dp = layout.dp;
  c.parallel.tp = layout.tp;
  const auto batch = static_cast<int64_t>(rows.batch());
  c.batch = {.tokens = batch * rows.seq(), .micro = batch / layout.dp, .accumulate = 1};
  const Json& adamw = expected["adamw"];
  c.optim.lr = adamw["lr"];
  c.optim.beta1 = adamw["betas"][0];
  c.optim.beta2 = adamw["betas"][1];
  c.optim.eps = adamw["eps"];
  c.optim.weight_decay = adamw["weight_decay"];
  c.optim.clip = 0;
  c.schedule.type = ScheduleType::kWsd;
  c.schedule.warmup = 0;
  return c;
}

struct Trained {
  double loss = 0;  // of the first rows, by the program that evaluates
  std::vector<StepReport> steps;
};

absl::StatusOr<Trained> TrainOnFixture(const std::string& name, DType compute, Layout layout) {
  const Json expected = Json::parse(Text(Fixture(name) + "/expected.json"));
  ASSIGN_OR_RETURN(const HfModel model, HfModel::Open(Env::Posix(), Fixture(name)));
  const FixtureRows rows(expected);
  const KernelTable kernels = CpuKernels();  // plans point into it
  ASSIGN_OR_RETURN(const Job job, CompileTraining(JobOf(model, expected, compute, layout), kernels));
  ASSIGN_OR_RETURN(std::vector<Plan> plans, PlanRanks(job, kernels));
  Trained result;
  RETURN_IF_ERROR(RunRanks(job.ranks, [&](World& world) -> absl::Status {
    CpuDevice device;
    const auto plan = std::make_shared<const Plan>(plans[world.rank()]);
    ASSIGN_OR_RETURN(auto runner, RankRunner::Create(job, plan, world, device, nullptr));
    RETURN_IF_ERROR(LoadHfWeights(model, runner->executor()));
    const auto batch = static_cast<int64_t>(rows.batch());
    ASSIGN_OR_RETURN(const RankRunner::LossSum sum, runner->Evaluate(batch, rows));
    if (world.rank() == 0) result.loss = sum.nats / static_cast<double>(sum.tokens);
    for (int64_t step = 1; step <= 5; ++step) {
      ASSIGN_OR_RETURN(const StepReport report, runner->TrainStep(step, (step - 1) * batch, rows));
      if (world.rank() == 0) result.steps.push_back(report);
    }
    return runner->Close();
  }));
  return result;
}

class HfModels : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Fixtures, HfModels,
                         ::testing::Values("bert", "gpt2", "llama-bf16-sharded", "llama-tied", "llama3", "qwen2",
                                           "qwen3"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// transformers keeps norms and angles in float32 in a float64 model too, so that both comparisons are of float32: a few ulps
// of a loss of 5 to 9, and what five steps make of them.
constexpr double kTolerance = 2e-6;

void ExpectSame(const Trained& run, const Json& expected, const char* type) {
  const auto close = [](double a, double b) { return std::abs(a - b) <= kTolerance * std::abs(b); };
  EXPECT_PRED2(close, run.loss, expected[type == std::string("float32") ? "loss_f32" : "loss_f64"].get<double>());
  const Json& adamw = expected["adamw"][type];
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_PRED2(close, run.steps[i].loss, adamw["losses"][i].get<double>()) << "step " << i + 1;
    EXPECT_NEAR(run.steps[i].grad_norm, adamw["grad_norms"][i].get<double>(), 2e-5 * run.steps[i].grad_norm) << i + 1;
  }
}

TEST_P(HfModels, TrainAsTransformersTrainsThem) {
  const Json expected = Json::parse(Text(Fixture(GetParam()) + "/expected.json"));
  const auto f64 = TrainOnFixture(GetParam(), DType::kF64, {1, 1}),
             f32 = TrainOnFixture(GetParam(), DType::kF32, {1, 1});
  ASSERT_TRUE(f64.ok() && f32.ok()) << f64.status() << f32.status();
  ExpectSame(*f64, expected, "float64");
  ExpectSame(*f32, expected, "float32");
}

// The vocabulary of 99 is padded where two ranks share it.
TEST_P(HfModels, EachRankReadsItsPart) {
  const auto one = TrainOnFixture(GetParam(), DType::kF64, {1, 1}),
             four = TrainOnFixture(GetParam(), DType::kF64, {2, 2});
  ASSERT_TRUE(one.ok() && four.ok()) << one.status() << four.status();
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(one->steps[i].loss, four->steps[i].loss, 1e-10 * one->steps[i].loss) << i;
}

std::vector<std::string> NamesIn(const std::string& folder) { return Env::Posix().List(folder).value(); }

void ExpectSameFolders(const std::string& a, const std::string& b) {
  ASSERT_EQ(NamesIn(a), NamesIn(b));
  for (const std::string& name : NamesIn(a)) EXPECT_TRUE(Text(a + "/" + name) == Text(b + "/" + name)) << name;
}

TEST_P(HfModels, ComeBackByteForByte) {
  const TempDir dir;
  const auto in = ImportHf(Env::Posix(), Fixture(GetParam()), dir.path("strata"), Verification::kYes);
  ASSERT_TRUE(in.ok()) << in.status();
  EXPECT_THAT(*in, HasSubstr("tensors are the same bits; loss on fixed tokens"));
  const auto out = ExportHf(Env::Posix(), dir.path("strata"), dir.path("hf"), Verification::kYes);
  ASSERT_TRUE(out.ok()) << out.status();
  ExpectSameFolders(Fixture(GetParam()), dir.path("hf"));
}

// Without what was kept, as transformers writes such a model: its tensors are the same again.
TEST_P(HfModels, AreWrittenInTheUsualForm) {
  const TempDir dir;
  ASSERT_TRUE(ImportHf(Env::Posix(), Fixture(GetParam()), dir.path("a"), Verification::kNo).ok());
  fs::remove_all(dir.path("a/huggingface"));
  const auto out =
      ExportHf(Env::Posix(), dir.path("a/checkpoints/step-0000000000"), dir.path("hf"), Verification::kYes);
  ASSERT_TRUE(out.ok()) << out.status();
  const auto before = HfModel::Open(Env::Posix(), Fixture(GetParam())),
             after = HfModel::Open(Env::Posix(), dir.path("hf"));
  ASSERT_TRUE(before.ok() && after.ok()) << after.status();
  EXPECT_EQ(DifferenceToHf(before->config(), after->config()), "");
  if (before->tensors().files().size() == 1) {
    EXPECT_TRUE(Text(Fixture(GetParam()) + "/model.safetensors") == Text(dir.path("hf/model.safetensors")));
  }
}

class ConvertTest : public ::testing::Test {
 protected:
  // The config of a job that goes on training `fixture`, on random tokens.
  std::string Job(const std::string& model_keys, const std::string& more = "") {
    WriteTokens();
    const std::string text = "[run]\nout = \"out\"\n[model]\n" + model_keys +
                             "[data]\ntrain = \"train\"\nvalid = \"train\"\n[batch]\nmicro = 1\naccumulate = 1\n"
                             "[schedule]\nsteps = 2\nwarmup = 0\n" +
                             more;
    EXPECT_TRUE(WriteTextAtomically(env_, dir_.path("job.toml"), text).ok());
    return dir_.path("job.toml");
  }
  std::string Errors(const std::string& config) {
    return std::string(LoadJobConfig(env_, config, {.data = true}).status().message());
  }
  absl::Status Run(const std::string& config, const std::string& resume = "auto") {
    const absl::StatusOr<LoadedJob> job = LoadJobConfig(env_, config, {.data = true});
    if (!job.ok()) return job.status();
    ::testing::internal::CaptureStdout();
    absl::Status status = Train(env_, *job, {.resume = resume});
    output_ = ::testing::internal::GetCapturedStdout();
    return status;
  }
  void WriteTokens() {
    auto writer = IndexedDatasetWriter::Create(env_, dir_.path("train"), 99);
    ASSERT_TRUE(writer.ok());
    std::vector<int32_t> tokens(400);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * i % 97);
    ASSERT_TRUE((*writer)->AddDocument(tokens).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }

  TempDir dir_;
  Env& env_ = Env::Posix();
  std::string output_;
};

TEST_F(ConvertTest, AJobGoesOnFromAModelAndIsWrittenBack) {
  fs::copy(Fixture("llama-bf16-sharded"), dir_.path("hf"));
  std::ofstream(dir_.path("hf/tokenizer.json")) << "{}";
  const std::string job = Job("from = \"hf:hf\"\nseq = 16\n", "[precision]\ncompute = \"bf16\"\n");
  const auto loaded = LoadJobConfig(env_, job, {.data = true});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.model.from, "hf:" + dir_.path("hf"));
  EXPECT_EQ(loaded->config.model.dim, 32);
  EXPECT_EQ(loaded->config.model.seq, 16);
  EXPECT_EQ(loaded->provenance.Of("model.dim"), "from " + dir_.path("hf/config.json"));
  ASSERT_EQ(Run(job), absl::OkStatus());
  EXPECT_THAT(output_, HasSubstr("imported: validation loss"));
  fs::remove_all(dir_.path("hf"));  // what the way back needs was kept
  const auto out = ExportHf(env_, dir_.path("out"), dir_.path("back"), Verification::kYes);
  ASSERT_TRUE(out.ok()) << out.status();
  const auto before = HfModel::Open(env_, Fixture("llama-bf16-sharded")),
             after = HfModel::Open(env_, dir_.path("back"));
  ASSERT_TRUE(before.ok() && after.ok()) << after.status();
  for (const SafetensorsFolder::File& f : before->tensors().files()) {  // the same form, other numbers
    const std::string a = Text(Fixture("llama-bf16-sharded") + "/" + f.name), b = Text(dir_.path("back/" + f.name));
    ASSERT_EQ(a.size(), b.size());
    EXPECT_EQ(a.substr(0, f.file.header_text().size() + 8), b.substr(0, f.file.header_text().size() + 8));
    EXPECT_NE(a, b);
  }
  EXPECT_EQ(Text(dir_.path("back/tokenizer.json")), "{}");
}

// Through masters in halves float32 weights come in and go out in every bit, where training leaves them as they are.
TEST_F(ConvertTest, MastersInHalvesAreWrittenBackExactly) {
  ASSERT_EQ(Run(Job("from = \"hf:" + Fixture("llama3") + "\"\nseq = 16\n",
                    "[precision]\ncompute = \"bf16\"\nmaster = \"split\"\n[optim]\nlr = 1e-30\n")),
            absl::OkStatus());
  const auto out = ExportHf(env_, dir_.path("out"), dir_.path("back"), Verification::kYes);
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_TRUE(Text(dir_.path("back/model.safetensors")) == Text(Fixture("llama3") + "/model.safetensors"));
}

TEST_F(ConvertTest, KeysThatContradictTheModelAreMistakes) {
  const std::string from = "from = \"hf:" + Fixture("qwen3") + "\"\n";
  EXPECT_EQ(Errors(Job(from + "dim = 32\nseq = 16\nrope_theta = 1e6\narch = \"qwen3\"\n")), "");
  EXPECT_THAT(Errors(Job(from + "dim = 64\n")),
              HasSubstr("error[E0202]: model.dim = 64: " + Fixture("qwen3") + "/config.json says otherwise"));
  EXPECT_THAT(Errors(Job(from + "arch = \"llama\"\n")), HasSubstr("model.arch = \"llama\": "));
  EXPECT_THAT(Errors(Job("from = \"qwen3\"\n")), HasSubstr("model.from = \"qwen3\": must be \"hf:DIR\""));
  EXPECT_THAT(Errors(Job("from = \"hf:none\"\n")),
              HasSubstr("error[E0204]: model.from: " + dir_.path("none/config.json")));
  fs::create_directory(dir_.path("bad"));
  std::ofstream(dir_.path("bad/config.json")) << R"({"model_type": "mamba"})";
  EXPECT_THAT(Errors(Job("from = \"hf:bad\"\n")), HasSubstr("\"model_type\": \"mamba\" is not supported"));
}

TEST_F(ConvertTest, TheConfigThatIsWrittenLoads) {
  ASSERT_TRUE(ImportHf(env_, Fixture("qwen3"), dir_.path("m"), Verification::kNo).ok());
  const auto job = LoadJobConfig(env_, dir_.path("m/model.toml"));
  ASSERT_TRUE(job.ok()) << job.status();
  const auto hf = ParseHfConfig(Text(Fixture("qwen3") + "/config.json"));
  EXPECT_EQ(DifferenceToHf(job->config.model, hf->model), "");
  EXPECT_EQ(job->config.run.out, dir_.path("m"));
  EXPECT_EQ(job->config.precision.compute, DType::kF32);
}

// The checkpoint of step 0 has weights and no moments: training begins with it.
TEST_F(ConvertTest, AJobTrainsInTheFolderThatWasMade) {
  ASSERT_TRUE(ImportHf(env_, Fixture("qwen2"), dir_.path("out"), Verification::kNo).ok());
  const std::string job =
      Job("arch = \"qwen2\"\nvocab = 99\nlayers = 2\ndim = 32\nheads = 4\nkv_heads = 2\nffn = 48\n"
          "seq = 16\nrope_theta = 1e6\nnorm_eps = 1e-6\ntied = true\n",
          "[precision]\ncompute = \"bf16\"\n");
  ASSERT_EQ(Run(job), absl::OkStatus());
  EXPECT_THAT(output_, HasSubstr("step 0 of 2"));
  EXPECT_TRUE(ExportHf(env_, dir_.path("out/checkpoints/step-0000000002"), dir_.path("back"), Verification::kYes).ok());
}

TEST_F(ConvertTest, NothingIsWrittenOver) {
  fs::create_directory(dir_.path("full"));
  std::ofstream(dir_.path("full/x")) << "mine";
  const absl::Status in = ImportHf(env_, Fixture("bert"), dir_.path("full"), Verification::kNo).status();
  EXPECT_EQ(in.code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(ImportHf(env_, Fixture("bert"), dir_.path("m"), Verification::kNo).ok());
  EXPECT_EQ(ExportHf(env_, dir_.path("m"), dir_.path("full"), Verification::kNo).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(NamesIn(dir_.path("full")), std::vector<std::string>{"x"});
}

TEST_F(ConvertTest, VerifyNamesATensorThatDiffers) {
  ASSERT_TRUE(ImportHf(env_, Fixture("gpt2"), dir_.path("m"), Verification::kNo).ok());
  fs::copy(Fixture("gpt2"), dir_.path("hf"));
  std::string text = Text(dir_.path("hf/model.safetensors"));
  text.back() = static_cast<char>(text.back() ^ 1);  // of the last tensor
  std::ofstream(dir_.path("hf/model.safetensors"), std::ios::binary) << text;
  const absl::Status status = VerifyConversion(env_, dir_.path("hf"), dir_.path("m")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor \"transformer.wte.weight\""));
}

TEST_F(ConvertTest, AKeptConfigOfAnotherModelIsRefused) {
  ASSERT_TRUE(ImportHf(env_, Fixture("llama3"), dir_.path("m"), Verification::kNo).ok());
  fs::copy_file(Fixture("llama-bf16-sharded") + "/config.json", dir_.path("m/huggingface/config.json"),
                fs::copy_options::overwrite_existing);
  EXPECT_THAT(std::string(ExportHf(env_, dir_.path("m"), dir_.path("hf"), Verification::kNo).status().message()),
              HasSubstr("is of another model than the checkpoint: model.rope_theta = 100.0"));
}

// float16 becomes float32 and comes back; a mask that no parameter needs goes along.
TEST_F(ConvertTest, HalvesAndUnusedTensorsComeBack) {
  const auto model = HfModel::Open(env_, Fixture("gpt2"));
  ASSERT_TRUE(model.ok());
  fs::create_directory(dir_.path("half"));
  fs::copy_file(Fixture("gpt2") + "/config.json", dir_.path("half/config.json"));
  SafetensorsHeader header{{}, {{"format", "pt"}}};
  for (const StoredTensor* t : model->tensors().tensors())
    header.tensors.push_back({t->name, StoredType::kF16, t->shape, 0});
  header.tensors.push_back({"transformer.h.0.attn.bias", StoredType::kBool, {1, 1, 4, 4}, 0});
  LayOutSafetensors(header.tensors);
  ASSERT_TRUE(WriteSafetensors(env_, dir_.path("half/model.safetensors"), header, PrintSafetensorsHeader(header),
                               [&](const StoredTensor& t, std::span<std::byte> out) -> absl::Status {
                                 if (t.type == StoredType::kBool) return absl::OkStatus();
                                 const StoredTensor& from = *model->tensors().Find(t.name);
                                 std::vector<std::byte> f32(out.size() * 2);
                                 RETURN_IF_ERROR(model->tensors().Read(from, OriginOf(from.shape), from.shape, f32));
                                 ConvertFloats(StoredType::kF32, f32, StoredType::kF16, out);
                                 return absl::OkStatus();
                               })
                  .ok());
  const auto in = ImportHf(env_, dir_.path("half"), dir_.path("m"), Verification::kYes);
  ASSERT_TRUE(in.ok()) << in.status();
  EXPECT_THAT(*in, HasSubstr("parameters in f32"));
  EXPECT_THAT(*in, HasSubstr("not used: 1 tensors"));
  const auto out = ExportHf(env_, dir_.path("m"), dir_.path("back"), Verification::kYes);
  ASSERT_TRUE(out.ok()) << out.status();
  ExpectSameFolders(dir_.path("half"), dir_.path("back"));
}

}  // namespace
}  // namespace strata
