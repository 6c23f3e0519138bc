#include "launch/config/job_config.h"

#include <cstdlib>
#include <filesystem>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/config/load_config.h"
#include "launch/config/print_config.h"
#include "launch/config/reference.h"

namespace strata {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::UnorderedElementsAre;

constexpr char kBatch[] = "[batch]\nmicro = 1\naccumulate = 1\n";  // what every config needs

// Values, printing and provenance.

constexpr char kFull[] = R"(
[run]
name = "full"
seed = 42
device = "cpu"
deterministic = true
out = "o\"ut"
[model]
from = "hf:m"
arch = "llama"
vocab = 512
layers = 3
dim = 96
heads = 6
kv_heads = 2
head_dim = 20
ffn = 128
seq = 32
rope_theta = 500000
rope_scaling = "llama3"
rope_factor = 32
rope_low = 2
rope_high = 3
rope_original = 16
norm_eps = 1e-6
tied = true
init_std = 0.03
[tokenizer]
path = "t.model"
[data]
train = "d/train"
valid = "/abs/valid"
packing = "isolate"
prefetch = 3
[batch]
tokens = 512
micro = 4
accumulate = 2
[optim]
type = "adamw"
lr = 0.1
beta1 = 0.8
beta2 = 0.9
eps = 1e-4
weight_decay = 0.01
clip = 0.5
no_decay = ["a*", 'b"c\']
[schedule]
type = "wsd"
steps = 99
warmup = 9
decay = 10
min_lr = 0.2
scaling = "linear"
base_tokens = 256
[precision]
compute = "bf16"
gradients = "float32"
master = "split"
[parallel]
dp = 2
tp = 2
sequence_parallel = true
keep_gathered = true
pp = 2
schedule = "interleaved"
schedule_file = "mine.csv"
virtual_stages = 2
stage_layout = "E,0 | 1 | 2 | H"
resident_stages = 1
overlap = "on"
overlap_groups = 2
reduce_scatter = "exchange"
zero = 3
zero_prefetch = 2
dp_inner = 1
zero_scope = "all"
zero_secondary = true
zero_weights = "int8"
zero_gradients = "bf16"
zero_reduce_scatter = "all-to-all"
transport = "host"
nccl_ctas = 8
nccl_launch = "direct"
nccl_buffers = "symmetric"
[memory]
limit = "1.5GiB"
recompute = "selective"
recompute_blocks = 2
[checkpoint]
every = 7
keep = 5
async = false
[log]
every = 3
sinks = ["prometheus", "jsonl"]
[eval]
every = 11
batches = 13
[guard]
nan = "skip"
spike_z = 4.5
spike = "skip"
window = 20
hang_timeout = 17
)";

JobConfig Full() {
  JobConfig c;
  c.run = {.name = "full", .seed = 42, .device = DeviceKind::kCpu, .deterministic = true, .out = "/cfg/o\"ut"};
  c.model = {.from = "hf:/cfg/m",
             .arch = ModelArch::kLlama,
             .vocab = 512,
             .layers = 3,
             .dim = 96,
             .heads = 6,
             .kv_heads = 2,
             .head_width = 20,
             .ffn = 128,
             .seq = 32,
             .rope_theta = 500000,
             .rope_scaling = RopeScalingKind::kLlama3,
             .rope_factor = 32,
             .rope_low = 2,
             .rope_high = 3,
             .rope_original = 16,
             .norm_eps = 1e-6,
             .tied = true,
             .init_std = 0.03};
  c.tokenizer = {.path = "/cfg/t.model"};
  c.data = {.train = {{.path = "/cfg/d/train"}}, .valid = "/abs/valid", .packing = Packing::kIsolate, .prefetch = 3};
  c.batch = {.tokens = 512, .micro = 4, .accumulate = 2};
  c.optim = {.type = OptimizerType::kAdamW,
             .lr = 0.1,
             .beta1 = 0.8,
             .beta2 = 0.9,
             .eps = 1e-4,
             .weight_decay = 0.01,
             .clip = 0.5,
             .no_decay = {"a*", "b\"c\\"}};
  c.schedule = {.type = ScheduleType::kWsd,
                .steps = 99,
                .warmup = 9,
                .decay = 10,
                .min_lr = 0.2,
                .scaling = LrScaling::kLinear,
                .base_tokens = 256};
  c.precision = {.compute = DType::kBF16, .master = MasterFormat::kSplit};
  c.parallel = {.dp = 2,
                .tp = 2,
                .sequence_parallel = true,
                .keep_gathered = true,
                .pp = 2,
                .schedule = "interleaved",
                .schedule_file = "/cfg/mine.csv",
                .virtual_stages = 2,
                .stage_layout = "E,0 | 1 | 2 | H",
                .resident_stages = 1,
                .overlap = Overlap::kOn,
                .overlap_groups = 2,
                .reduce_scatter = ReduceScatterBy::kExchange,
                .zero = {.stage = 3,
                         .prefetch = 2,
                         .inner = 1,
                         .scope = ZeroScope::kAll,
                         .secondary = true,
                         .weights = Wire::kInt8,
                         .gradients = Wire::kBf16,
                         .scatter_by = ScatterBy::kAllToAll},
                .comm = {.transport = Transport::kHost,
                         .nccl_ctas = 8,
                         .launch = NcclLaunch::kDirect,
                         .buffers = NcclBuffers::kSymmetric}};
  c.memory = {.limit = "1.5GiB", .recompute = Recompute::kSelective, .recompute_blocks = 2};
  c.checkpoint = {.every = 7, .keep = 5, .async = false};
  c.log = {.every = 3, .sinks = {"prometheus", "jsonl"}};
  c.eval = {.every = 11, .batches = 13};
  c.guard = {.nan = GuardAction::kSkip, .spike_z = 4.5, .spike = GuardAction::kSkip, .window = 20, .hang_timeout = 17};
  return c;
}

TEST(Config, EveryKeyReachesItsField) {
  const auto job = ParseJobConfig(kFull, "/cfg/run.toml");
  ASSERT_TRUE(job.ok()) << job.status().message();
  EXPECT_TRUE(job->config == Full()) << PrintConfig(job->config, job->provenance);
  EXPECT_THAT(PrintConfig(job->config, job->provenance), Not(HasSubstr("# default")));
}

template <class Section>
std::vector<const void*> Described(Section& section) {
  std::vector<const void*> described;
  for (const ConfigField& field : DescribeFields(section)) {
    if (const ChoiceRef* choice = std::get_if<ChoiceRef>(&field.value)) {
      described.push_back(choice->value);
    } else {
      described.push_back(std::visit(
          [](const auto& value) -> const void* {
            if constexpr (std::is_pointer_v<std::decay_t<decltype(value)>>) return value;
            return nullptr;
          },
          field.value));
    }
    EXPECT_FALSE(field.info.doc.empty()) << field.name;
  }
  return described;
}

// Fails to compile when a member is added to a struct, and fails when a member is not described.
template <class Section, class... Members>
void ExpectDescribed(Section& section, Members&... members) {
  EXPECT_THAT(Described(section), ElementsAre(static_cast<const void*>(&members)...));
}

// The same of a struct whose keys depend on `choice`: every member is a key of some kind.
template <class Section, class Choice, class... Members>
void ExpectDescribedByKind(Section& section, Choice& choice, size_t num_kinds, Members&... members) {
  std::set<const void*> described;
  for (size_t i = 0; i < num_kinds; ++i) {
    choice = static_cast<Choice>(i);
    for (const void* member : Described(section)) described.insert(member);
  }
  EXPECT_THAT(described, UnorderedElementsAre(static_cast<const void*>(&members)...));
}

TEST(Config, EveryMemberOfEveryStructIsDescribed) {
  JobConfig job;
  auto& [run, model, tokenizer, data, batch, optim, schedule, precision, parallel, memory, checkpoint, log, eval,
         guard] = job;
  EXPECT_EQ(DescribeJob(job).size(), 14u);
  const auto check = [](auto& section, auto&... members) { ExpectDescribed(section, members...); };
  {
    auto& [a, b, c, d, e] = run;
    check(run, a, b, c, d, e);
  }
  {
    auto& [a, b, c, padded_vocab, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v] = model;
    EXPECT_EQ(padded_vocab, 0);  // derived, no key
    ExpectDescribedByKind(model, b, std::size(kModelArchNames), a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s,
                          t, u, v);
  }
  {
    auto& [a] = tokenizer;
    check(tokenizer, a);
  }
  {
    auto& [a, b, c, d] = data;
    check(data, a, b, c, d);
  }
  {
    auto& [a, b, c] = batch;
    check(batch, a, b, c);
  }
  {
    auto& [a, b, c, d, e, f, g, h, i, j] = optim;
    ExpectDescribedByKind(optim, a, std::size(kOptimizerTypeNames), a, b, c, d, e, f, g, h, i, j);
  }
  {
    auto& [a, b, c, d, e, f, g] = schedule;
    check(schedule, a, b, c, d, e, f, g);
  }
  {
    auto& [a, b, c] = precision;
    check(precision, a, b, c);
  }
  {
    auto& [a, b, c, d, e, f, g, h, i, q, r, y, x, zero, comm] = parallel;
    auto& [j, k, l, m, n, o, p, s] = zero;
    auto& [t, u, v, w] = comm;
    check(parallel, a, b, c, d, e, f, g, h, i, q, r, y, x, j, k, l, m, n, o, p, s, t, u, v, w);
  }
  {
    auto& [a, b, c] = memory;
    check(memory, a, b, c);
  }
  {
    auto& [a, b, c] = checkpoint;
    check(checkpoint, a, b, c);
  }
  {
    auto& [a, b] = log;
    check(log, a, b);
  }
  {
    auto& [a, b] = eval;
    check(eval, a, b);
  }
  {
    auto& [a, b, c, d, e] = guard;
    check(guard, a, b, c, d, e);
  }
}

TEST(Config, PrintHoldsEveryFieldAndLoadsBackFromAnyFolder) {
  for (const std::string& text : {std::string(kFull), std::string(kBatch)}) {
    const auto job = ParseJobConfig(text, "/cfg/run.toml");
    ASSERT_TRUE(job.ok()) << job.status().message();
    const std::string printed = PrintConfig(job->config, job->provenance);
    JobConfig copy = job->config;
    for (const ConfigSection& section : DescribeJob(copy)) {
      EXPECT_THAT(printed, HasSubstr("[" + section.name + "]\n"));
      const size_t start = printed.find("[" + section.name + "]\n");
      for (const ConfigField& field : section.fields) {
        EXPECT_NE(printed.find("\n" + field.name + " = ", start), std::string::npos)
            << section.name << "." << field.name;
      }
    }
    const auto again = ParseJobConfig(printed, "/elsewhere/effective.toml");
    ASSERT_TRUE(again.ok()) << again.status().message();
    EXPECT_TRUE(again->config == job->config) << printed;
  }
}

TEST(Config, KeysDependOnTheArchitecture) {
  const auto job = ParseJobConfig(std::string("[model]\nmask_token = 3\ndropout = 0.1\narch = \"bert\"\n") + kBatch,
                                  "/cfg/run.toml");
  ASSERT_TRUE(job.ok()) << job.status().message();
  EXPECT_EQ(job->config.model.arch, ModelArch::kBert);
  EXPECT_EQ(job->config.model.mask_token, 3);
  const auto set = ParseJobConfig(kBatch, "/cfg/run.toml", {"model.dropout=0.1", "model.arch=gpt2"});
  ASSERT_TRUE(set.ok()) << set.status().message();
  EXPECT_EQ(set->config.model.dropout, 0.1);
  const std::string printed = PrintConfig(job->config, job->provenance);
  EXPECT_THAT(printed, HasSubstr("dropout = 0.1"));
  EXPECT_THAT(printed, Not(HasSubstr("rope_theta")));
  const auto again = ParseJobConfig(printed, "/elsewhere/effective.toml");
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_TRUE(again->config == job->config) << printed;
}

TEST(Config, PrintSaysWhereEachValueCameFrom) {
  const auto job = ParseJobConfig("[optim]\n\nlr = 0.5\n[batch]\ntokens = 1024\nmicro = 2\n", "dir/run.toml");
  ASSERT_TRUE(job.ok()) << job.status().message();
  const std::string printed = PrintConfig(job->config, job->provenance);
  EXPECT_THAT(printed, HasSubstr("lr = 0.5                         # dir/run.toml:3\n"
                                 "beta1 = 0.9                      # default\n"));
  EXPECT_THAT(printed, HasSubstr("[batch]\n"
                                 "tokens = 1024   # dir/run.toml:5\n"
                                 "micro = 2       # dir/run.toml:6\n"
                                 "accumulate = 2  # from batch.tokens and batch.micro\n"));
}

TEST(Config, CommandLineOverridesTheFile) {
  const auto job = ParseJobConfig("[run]\nname = \"a\"\n[optim]\nlr = 1\n" + std::string(kBatch), "run.toml",
                                  {"optim.lr=0.5", "run.name=it's \"b\"", "schedule.type=wsd", "model.tied=true",
                                   "optim.no_decay=[\"*x*\"]", "schedule.steps=500", "schedule.steps=700"});
  ASSERT_FALSE(job.ok());  // of the quote
  EXPECT_THAT(std::string(job.status().message()), HasSubstr("--> --set run.name=it's \"b\""));
  const auto good = ParseJobConfig("[run]\nname = \"a\"\n[optim]\nlr = 1\n" + std::string(kBatch), "run.toml",
                                   {"optim.lr=0.5", "run.name=b-7", "schedule.type=wsd", "model.tied=true",
                                    "optim.no_decay=[\"*x*\"]", "schedule.steps=500", "schedule.steps=700"});
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->config.optim.lr, 0.5);
  EXPECT_EQ(good->config.run.name, "b-7");
  EXPECT_EQ(good->config.schedule.type, ScheduleType::kWsd);
  EXPECT_TRUE(good->config.model.tied);
  EXPECT_THAT(good->config.optim.no_decay, ElementsAre("*x*"));
  EXPECT_EQ(good->config.schedule.steps, 700);
  EXPECT_EQ(good->provenance.Of("optim.lr"), "command line");
  EXPECT_EQ(good->provenance.Of("batch.micro"), "run.toml:6");
}

TEST(Config, OverriddenPathsAreRelativeToTheCurrentFolder) {
  const auto job = ParseJobConfig("[data]\ntrain = \"t\"\nvalid = \"v\"\n" + std::string(kBatch), "/x/run.toml",
                                  {"data.valid=w", "tokenizer.path=\"/abs\""});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->config.data.train[0].path, "/x/t");
  EXPECT_EQ(job->config.data.valid, (std::filesystem::current_path() / "w").string());
  EXPECT_EQ(job->config.tokenizer.path, "/abs");
}

TEST(Config, SeveralSourcesOfTrainingTokens) {
  const std::vector<WeightedPath> want = {{"/x/web", 2.5}, {"/abs/books", 1}, {"/x/code", 3}};
  const char* const forms[] = {
      "[data]\ntrain = [{path = \"web\", weight = 2.5}, {path = \"/abs/books\"}, {weight = 3, path = \"code\"}]\n",
      "[[data.train]]\npath = \"web\"\nweight = 2.5\n[[data.train]]\npath = \"/abs/books\"\n"
      "[[data.train]]\npath = \"code\"\nweight = 3\n",
  };
  for (const std::string form : forms) {
    const auto job = ParseJobConfig(form + kBatch, "/x/run.toml");
    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(job->config.data.train, want);
    const std::string printed = PrintConfig(job->config, job->provenance);
    EXPECT_THAT(printed,
                HasSubstr("train = [{path = \"/x/web\", weight = 2.5}, {path = \"/abs/books\", weight = 1.0}, "));
    const auto again = ParseJobConfig(printed, "/elsewhere/effective.toml");
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->config.data.train, want);
  }
  const auto set = ParseJobConfig(kBatch, "/x/run.toml", {"data.train=[{path=\"a\", weight=2}, {path=\"/b\"}]"});
  ASSERT_TRUE(set.ok()) << set.status();
  const std::string here = (std::filesystem::current_path() / "a").string();
  EXPECT_EQ(set->config.data.train, (std::vector<WeightedPath>{{here, 2}, {"/b", 1}}));
}

TEST(Config, StringsSurvivePrinting) {
  JobConfig job;
  job.optim.no_decay = {"quote\" back\\slash", "tab\t newline\n bell\x07 del\x7f", "\xc3\xa9"};
  job.batch = {.tokens = 256, .micro = 1, .accumulate = 1};
  const auto again = ParseJobConfig(PrintConfig(job, {}), "run.toml");
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(again->config.optim.no_decay, job.optim.no_decay);
}

TEST(Config, RelativePathsAreRelativeToTheConfigFile) {
  const std::string text =
      std::string("[data]\ntrain = \"../tokens/train\"\n[tokenizer]\npath = \"/abs/t.model\"\n") + kBatch;
  const auto job = ParseJobConfig(text, "/cfg/jobs/run.toml");
  ASSERT_TRUE(job.ok()) << job.status().message();
  EXPECT_EQ(job->config.data.train[0].path, "/cfg/tokens/train");
  EXPECT_EQ(job->config.data.valid, "");
  EXPECT_EQ(job->config.tokenizer.path, "/abs/t.model");
  EXPECT_EQ(job->config.run.out, "/cfg/jobs/runs/run");
  const auto here = ParseJobConfig(text, "jobs/run.toml");
  ASSERT_TRUE(here.ok());
  EXPECT_EQ(here->config.data.train[0].path, (std::filesystem::current_path() / "tokens/train").string());
}

TEST(Config, ModelParameters) {
  ModelConfig model{.vocab = 10, .layers = 2, .dim = 8, .heads = 4, .kv_heads = 2, .ffn = 6};
  // blocks: wq, wo 64 + 64; wk, wv 32 + 32; gate, up, down 144; norms 16. Then the last norm 8 and two tables of 80.
  EXPECT_EQ(model.num_parameters(), 2 * 352 + 8 + 160);
  model.tied = true;
  EXPECT_EQ(model.num_parameters(), 2 * 352 + 8 + 80);
}

// Files.

class ConfigFileTest : public testing::Test {
 protected:
  void SetUp() override {
    const testing::TestInfo& info = *testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing::TempDir() + "strata_config_" + info.name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    path_ = folder_ + "/run.toml";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Put(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteTextAtomically(Env::Posix(), folder_ + "/" + name, text).ok());
  }
  std::string LoadErrors(ConfigNeeds needs) {
    const auto job = LoadJobConfig(Env::Posix(), path_, needs);
    if (job.ok()) return "";
    EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(job.status().message());
  }

  std::string folder_, path_;
};

TEST_F(ConfigFileTest, NeedsAreReportedWithTheOtherMistakes) {
  Put("run.toml", std::string("[data]\ntrain = \"train\"\n[model]\nheads = 7\n") + kBatch);
  EXPECT_EQ(LoadErrors({.tokenizer = true, .data = true}),
            "error[E0204]: data.train: " + folder_ + "/train.idx does not exist\n  --> " + path_ + ":2:9\n" +
                "error[E0201]: model.heads = 7: must divide model.dim = 256 into heads of even size\n  --> " + path_ +
                ":4:9    nearest valid: 8\n" + "error[E0109]: tokenizer.path is needed by this command\n  --> " +
                path_ + " (tokenizer.path is not set there)");
}

TEST_F(ConfigFileTest, LoadsWhereTheFilesAre) {
  Put("run.toml", std::string("[data]\ntrain = \"train\"\n[tokenizer]\npath = \"t.model\"\n") + kBatch);
  EXPECT_EQ(LoadErrors({}), "");
  EXPECT_THAT(LoadErrors({.tokenizer = true}), HasSubstr("error[E0204]: tokenizer.path: "));
  EXPECT_THAT(LoadErrors({.data = true}), HasSubstr("error[E0204]: tokenizer.path: "));
  Put("t.model", "x");
  EXPECT_EQ(LoadErrors({.tokenizer = true}), "");
  Put("train.idx", "x");
  EXPECT_THAT(LoadErrors({.data = true}), HasSubstr("train.bin does not exist"));
  Put("train.bin", "x");
  EXPECT_EQ(LoadErrors({.tokenizer = true, .data = true}), "");
}

TEST_F(ConfigFileTest, MissingOrHugeConfig) {
  EXPECT_THAT(LoadErrors({}), testing::AllOf(HasSubstr("error[E0101]: "), HasSubstr("\n  --> " + path_)));
  Put("run.toml", std::string((1 << 20) + 1, '#'));
  EXPECT_THAT(LoadErrors({}), HasSubstr("error[E0101]: "));
}

TEST(ConfigReference, DocsPageIsUpToDate) {  // after a change: STRATA_UPDATE_GOLDEN=1 build/launch_tests
  const std::string path = STRATA_SOURCE_DIR "/docs/config.md";
  if (std::getenv("STRATA_UPDATE_GOLDEN") != nullptr) {
    ASSERT_TRUE(WriteTextAtomically(Env::Posix(), path, ConfigReference()).ok());
  }
  const auto page = ReadText(Env::Posix(), path);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_TRUE(*page == ConfigReference()) << "docs/config.md is not what the code says";
}

}  // namespace
}  // namespace strata
