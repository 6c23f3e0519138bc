// The built binary, as a user runs it: train, resume, interrupt, generate, and every kind of mistake.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <regex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "checkpoint/reader.h"
#include "core/base/env.h"
#include "tests/testing/strata_program.h"
#include "tests/testing/test_checkpoint.h"

namespace strata {
namespace {

using testing::Ended;
using testing::Strata;

std::string Read(const std::string& path) {
  absl::StatusOr<std::string> text = ReadText(Env::Posix(), path);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *text : "";
}

// Every logged number that does not depend on time.
std::string Numbers(const std::string& metrics) {
  std::string text = std::regex_replace(
      metrics, std::regex(",\"(step_s|data_wait|tokens_per_s|save_s|stall_s|checkpoint)\":[^,}]*"), "");
  return std::regex_replace(text, std::regex("[^\n]*\\{\"step\":[0-9]+\\}\n"), "");
}

std::set<std::string> Files(const std::string& folder) {
  std::set<std::string> files;
  for (const auto& e : std::filesystem::recursive_directory_iterator(folder)) files.insert(e.path().string());
  return files;
}

class EndToEnd : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 400; ++i) {
      absl::StrAppend(&text, "Chapter ", i % 37, ". The ", i % 3 == 0 ? "quick" : "slow", " fox number ",
                      i * 7919 % 101, " ran over hill ", i * 31 % 17, " and told it to the dog.",
                      i % 5 == 0 ? "\n\n" : "\n");
    }
    Write("text.txt", text);
    const Ended built =
        Strata(absl::StrCat("data build --text ", Path("text.txt"), " --out ", Path("data"), " --vocab 320"));
    ASSERT_EQ(built.code, 0) << built.out;
    Write("job.toml", Config("run", 2, 2));
  }

  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteTextAtomically(Env::Posix(), Path(name), text).ok());
  }
  static std::string Config(const std::string& name, int dp, int tp) {
    return absl::StrCat("[run]\nname = \"", name, "\"\nout = \"out-", name, R"("
[model]
vocab = 320
layers = 2
dim = 32
heads = 4
kv_heads = 2
ffn = 48
seq = 16
[tokenizer]
path = "data/tokenizer.model"
[data]
train = "data/train"
valid = "data/valid"
[batch]
tokens = 128
micro = 2
[schedule]
steps = 12
warmup = 2
[parallel]
dp = )",
                        dp, "\ntp = ", tp, R"(
[checkpoint]
every = 4
keep = 9
[log]
every = 1
[eval]
every = 6
)");
  }

  const TempDir dir_;
};

TEST_F(EndToEnd, ResumeIsBitExact) {
  const Ended whole = Strata("train " + Path("job.toml"));
  ASSERT_EQ(whole.code, 0) << whole.out;
  EXPECT_NE(whole.out.find("ln(vocab) = 5.7683"), std::string::npos) << whole.out;
  EXPECT_NE(whole.out.find("measured peak"), std::string::npos) << whole.out;
  const std::string numbers = Numbers(Read(Path("out-run/metrics.jsonl")));
  const std::string file = "/checkpoints/step-0000000012/data-00003.h5";
  const std::string weights = Read(Path("out-run") + file);

  // As if the run had ended after the save of step 4.
  for (const char* step : {"step-0000000008", "step-0000000012"}) {
    std::filesystem::remove_all(Path(absl::StrCat("out-run/checkpoints/", step)));
  }
  const Ended resumed = Strata("train " + Path("job.toml"));
  ASSERT_EQ(resumed.code, 0) << resumed.out;
  EXPECT_NE(resumed.out.find("resumed"), std::string::npos) << resumed.out;
  EXPECT_EQ(Numbers(Read(Path("out-run/metrics.jsonl"))), numbers);
  EXPECT_EQ(Read(Path("out-run") + file), weights);

  const Ended finished = Strata("train " + Path("job.toml"));  // nothing is left to do
  EXPECT_EQ(finished.code, 0) << finished.out;
  EXPECT_EQ(Read(Path("out-run") + file), weights);
}

TEST_F(EndToEnd, InterruptSavesAndTheSameCommandGoesOn) {
  Write("long.toml",
        absl::StrReplaceAll(Config("long", 2, 1), {{"steps = 12", "steps = 4000"}, {"tokens = 128", "tokens = 512"}}));
  const std::string metrics = Path("out-long/metrics.jsonl");
  const std::string log = Path("log");
  const pid_t child = fork();
  if (child == 0) {
    const std::string config = Path("long.toml");
    std::freopen(log.c_str(), "w", stdout);
    dup2(fileno(stdout), STDERR_FILENO);
    execl(STRATA_BINARY, "strata", "train", config.c_str(), nullptr);
    _exit(127);
  }
  for (int i = 0; i < 1000; ++i) {
    const absl::StatusOr<std::string> text = ReadText(Env::Posix(), metrics);
    if (text.ok() && text->find("\"step\":3,") != std::string::npos) break;
    usleep(10000);
  }
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 75) << Read(log);
  std::smatch at;
  const std::string said = Read(log);
  ASSERT_TRUE(std::regex_search(said, at, std::regex("interrupted at step ([0-9]+)"))) << said;
  const Ended verified = Strata("ckpt verify " + Path("out-long/checkpoints"));
  EXPECT_EQ(verified.code, 0) << verified.out;
  const int64_t step = std::stoll(at[1]);
  Write("long.toml",
        absl::StrReplaceAll(Read(Path("long.toml")), {{"steps = 4000", absl::StrCat("steps = ", step + 2)}}));
  const Ended resumed = Strata("train " + Path("long.toml"));
  EXPECT_EQ(resumed.code, 0) << resumed.out;
  EXPECT_NE(resumed.out.find(absl::StrCat("step ", step, " of ", step + 2)), std::string::npos) << resumed.out;
}

// The final validation losses that a run printed.
std::string FinalLoss(const std::string& out) {
  std::smatch at;
  return std::regex_search(out, at, std::regex("final: validation loss ([0-9.]+)")) ? std::string(at[1]) : out;
}

TEST_F(EndToEnd, GoesOnInAnotherLayoutWithAnotherBatch) {
  const Ended whole = Strata("train " + Path("job.toml") + " --set precision.compute=float64");
  ASSERT_EQ(whole.code, 0) << whole.out;
  std::filesystem::remove_all(Path("out-run/checkpoints/step-0000000012"));
  std::filesystem::copy(Path("out-run"), Path("out-other"), std::filesystem::copy_options::recursive);
  Write("job.toml", Config("other", 4, 1));
  const Ended other = Strata("train " + Path("job.toml") + " --set precision.compute=float64");
  ASSERT_EQ(other.code, 0) << other.out;
  EXPECT_NE(other.out.find("step 8 of 12"), std::string::npos) << other.out;
  EXPECT_EQ(FinalLoss(other.out), FinalLoss(whole.out));

  // The cursor counts samples, not steps: half the batch goes on where the whole one ended.
  std::filesystem::remove_all(Path("out-other/checkpoints/step-0000000012"));
  const Ended half = Strata("train " + Path("job.toml") + " --set precision.compute=float64 --set batch.tokens=64" +
                            " --set batch.micro=1");
  ASSERT_EQ(half.code, 0) << half.out;
  const Ended list = Strata("ckpt ls " + Path("out-other/checkpoints"));
  EXPECT_NE(list.out.find("next sample 80"), std::string::npos) << list.out;  // 8 * 8 + 4 * 4
}

TEST_F(EndToEnd, AnotherModelOrOptimizerIsRefused) {
  ASSERT_EQ(Strata("train " + Path("job.toml")).code, 0);
  const std::set<std::string> before = Files(Path("out-run/checkpoints"));
  const Ended model = Strata("train " + Path("job.toml") + " --set model.layers=3");
  EXPECT_EQ(model.code, 64) << model.out;
  EXPECT_NE(model.out.find("blocks.2.attn_norm.weight is not in it"), std::string::npos) << model.out;
  const Ended optimizer = Strata("train " + Path("job.toml") + " --set optim.type=sgd");
  EXPECT_EQ(optimizer.code, 64) << optimizer.out;
  EXPECT_NE(optimizer.out.find("holds exp_avg, exp_avg_sq of each parameter, this job needs momentum"),
            std::string::npos)
      << optimizer.out;
  EXPECT_EQ(Files(Path("out-run/checkpoints")), before);
}

TEST_F(EndToEnd, ReshardIsEqualAndTrainingGoesOnFromIt) {
  ASSERT_EQ(Strata("train " + Path("job.toml")).code, 0);
  const std::string from = Path("out-run/checkpoints/step-0000000008"), to = Path("resharded");
  const std::string reshard = absl::StrCat("ckpt reshard ", from, " ", to);
  const Ended other = Strata(reshard + " --like " + Path("job.toml") + " --set parallel.dp=4 --set parallel.tp=1");
  EXPECT_EQ(other.code, 0) << other.out;
  EXPECT_NE(other.out.find("of step 8 in 4 files"), std::string::npos) << other.out;
  const Ended diff = Strata(absl::StrCat("ckpt diff ", from, " ", to));
  EXPECT_EQ(diff.code, 0) << diff.out;
  EXPECT_NE(diff.out.find("0 of "), std::string::npos) << diff.out;
  EXPECT_EQ(Strata("ckpt verify " + to).code, 0);
  const Ended again = Strata(reshard);
  EXPECT_EQ(again.code, 64) << again.out;
  EXPECT_NE(again.out.find("exists already"), std::string::npos) << again.out;
  const Ended model = Strata(
      absl::StrCat("ckpt reshard ", from, " ", Path("new"), " --like ", Path("job.toml"), " --set model.layers=3"));
  EXPECT_EQ(model.code, 64) << model.out;
  EXPECT_FALSE(std::filesystem::exists(Path("new")));
  const Ended on = Strata("train " + Path("job.toml") + " --resume " + to + " --set parallel.dp=1");
  EXPECT_EQ(on.code, 0) << on.out;
  EXPECT_NE(on.out.find("step 8 of 12"), std::string::npos) << on.out;
  // Of a run's folder, its checkpoints are meant.
  EXPECT_NE(Strata("ckpt ls " + Path("out-run")).out.find("step-0000000012"), std::string::npos);
  EXPECT_EQ(Strata("ckpt verify " + Path("out-run")).code, 0);
}

TEST_F(EndToEnd, DamageIsNamedAndSkipped) {
  ASSERT_EQ(Strata("train " + Path("job.toml")).code, 0);
  const std::string file = Path("out-run/checkpoints/step-0000000012/data-00002.h5");
  std::string bytes = Read(file);
  bytes[bytes.size() / 2] ^= 1;
  ASSERT_TRUE(WriteTextAtomically(Env::Posix(), file, bytes).ok());
  const Ended verified = Strata("ckpt verify " + Path("out-run/checkpoints"));
  EXPECT_EQ(verified.code, 1);
  EXPECT_NE(verified.out.find("data-00002.h5"), std::string::npos) << verified.out;
  const Ended resumed = Strata("train " + Path("job.toml"));
  EXPECT_EQ(resumed.code, 0) << resumed.out;
  EXPECT_NE(resumed.out.find("skipped"), std::string::npos) << resumed.out;
  EXPECT_NE(resumed.out.find("step 8 of 12"), std::string::npos) << resumed.out;
  const Ended list = Strata("ckpt ls " + Path("out-run/checkpoints"));
  EXPECT_EQ(list.code, 0);
  EXPECT_NE(list.out.find("step-0000000012"), std::string::npos) << list.out;
}

TEST_F(EndToEnd, GenerateReadsACheckpointOfAnyLayoutAndRepeatsItself) {
  ASSERT_EQ(Strata("train " + Path("job.toml")).code, 0);
  const std::string command = "generate " + Path("job.toml") + " --prompt 'The quick' --tokens 24 --seed 3";
  const Ended a = Strata(command), b = Strata(command), c = Strata(command + " --temperature 0");
  EXPECT_EQ(a.code, 0) << a.out;
  EXPECT_EQ(a.out.substr(0, 9), "The quick");
  EXPECT_GT(a.out.size(), 20u);
  EXPECT_EQ(a.out, b.out);
  EXPECT_NE(a.out, c.out);
}

TEST_F(EndToEnd, PlanPrintsExactMemoryAndNeedsNoData) {
  std::filesystem::remove_all(Path("data"));
  const Ended plan = Strata("plan " + Path("job.toml"));
  EXPECT_EQ(plan.code, 0) << plan.out;
  for (const char* part :
       {"parameters", "FLOPs a token", "moments", "(exact)", "(estimated)", "s a step", "dp=2 x tp=2"}) {
    EXPECT_NE(plan.out.find(part), std::string::npos) << part << plan.out;
  }
  EXPECT_GT(Strata("plan " + Path("job.toml") + " --steps").out.size(), plan.out.size() * 5);
}

// Three documents: isolated, their two seams are not trained on, and `eval` sees what training saw.
TEST_F(EndToEnd, IsolatedDocumentsTrainAndEvaluate) {
  const Ended built = Strata(absl::StrCat("data build --text ", Path("text.txt"), " ", Path("text.txt"), " ",
                                          Path("text.txt"), " --force --out ", Path("data"), " --vocab 320"));
  ASSERT_EQ(built.code, 0) << built.out;
  struct Score {
    std::string loss;
    int64_t tokens = 0;
  };
  const auto score = [](const std::string& out, const std::string& pattern) {
    std::smatch at;
    if (!std::regex_search(out, at, std::regex(pattern))) return Score{out, 0};
    return Score{at[1], std::stoll(at[2])};
  };
  const std::string trained = "final: validation loss ([0-9.]+) nats a token on ([0-9]+) tokens";
  const Ended concat = Strata("train " + Path("job.toml") + " --set run.name=a --set run.out=" + Path("a"));
  const std::string isolate = Path("job.toml") + " --set data.packing=isolate --set run.out=" + Path("b");
  const Ended kept_apart = Strata("train " + isolate), evaluated = Strata("eval " + isolate);
  ASSERT_EQ(concat.code, 0) << concat.out;
  ASSERT_EQ(kept_apart.code, 0) << kept_apart.out;
  ASSERT_EQ(evaluated.code, 0) << evaluated.out;
  const Score a = score(concat.out, trained), b = score(kept_apart.out, trained),
              c = score(evaluated.out, "loss ([0-9.]+) nats a token .* on ([0-9]+) tokens");
  EXPECT_EQ(b.tokens, a.tokens - 2);
  EXPECT_NE(b.loss, a.loss);
  EXPECT_EQ(c.tokens, b.tokens);
  EXPECT_EQ(c.loss, b.loss);
}

struct Mistake {
  const char* name;
  std::map<std::string, std::string> edits;
  std::vector<std::string> expected;  // parts of the message
};

TEST_F(EndToEnd, MistakesAreReportedTogetherWithTheirPlaceAndNothingIsWritten) {
  const std::vector<Mistake> mistakes = {
      {"unknown key and wrong type",
       {{"layers = 2", "layres = 2"}, {"dim = 32", "dim = \"big\""}},
       {"bad.toml:6:1", "`layres`", "did you mean `layers`", "bad.toml:7:7"}},
      {"impossible size", {{"layers = 2", "layers = 100000000"}, {"dim = 32", "dim = 1000000"}}, {"bad.toml:"}},
      {"does not fit",
       {{"dim = 32", "dim = 16384"}, {"layers = 2", "layers = 100"}, {"ffn = 48", "ffn = 65536"}},
       {"this machine has", "moments"}},
      {"not divisible",
       {{"heads = 4", "heads = 5"}, {"ffn = 48", "ffn = 49"}},
       {"bad.toml:8:9", "model.heads = 5", "model.ffn = 49"}},
      {"missing files",
       {{"data/train", "data/tarin"}, {"data/tokenizer.model", "data/none.model"}},
       {"bad.toml:", "tarin", "none.model"}},
      {"vocabulary mismatch",
       {{"vocab = 320", "vocab = 256"}},
       {"bad.toml:5:9", "320 pieces", "data.train", "data.valid"}},
  };
  for (const Mistake& m : mistakes) {
    std::string text = Config("bad", 2, 2);
    for (const auto& [from, to] : m.edits) {
      ASSERT_NE(text.find(from), std::string::npos) << from;
      text = absl::StrReplaceAll(text, {{from, to}});
    }
    Write("bad.toml", text);
    const std::set<std::string> before = Files(dir_.path());
    const Ended e = Strata("train " + Path("bad.toml"));
    EXPECT_EQ(e.code, 64) << m.name << ": " << e.out;
    for (const std::string& part : m.expected)
      EXPECT_NE(e.out.find(part), std::string::npos) << m.name << ": no " << part << " in\n" << e.out;
    EXPECT_EQ(Files(dir_.path()), before) << m.name;
  }
}

TEST_F(EndToEnd, MistakesOfDataBuild) {
  Write("empty.txt", " \n\n");
  const std::set<std::string> before = Files(dir_.path());
  const std::string out = " --vocab 320 --out " + Path("new");
  const Ended empty = Strata("data build --text " + Path("empty.txt") + out);
  EXPECT_EQ(empty.code, 64);
  EXPECT_NE(empty.out.find("empty.txt"), std::string::npos) << empty.out;
  const Ended missing = Strata("data build --text " + Path("nowhere.txt") + out);
  EXPECT_EQ(missing.code, 64);
  EXPECT_NE(missing.out.find("nowhere.txt"), std::string::npos) << missing.out;
  const Ended large = Strata("data build --text " + Path("text.txt") + " --vocab 60000 --out " + Path("new"));
  EXPECT_EQ(large.code, 64) << large.out;
  const Ended again = Strata("data build --text " + Path("text.txt") + " --vocab 320 --out " + Path("data"));
  EXPECT_EQ(again.code, 64) << again.out;
  EXPECT_EQ(Files(dir_.path()), before);
}

}  // namespace
}  // namespace strata
