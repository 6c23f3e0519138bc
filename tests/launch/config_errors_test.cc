#include "launch/config/errors.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "launch/config/load_config.h"
#include "launch/config/nearest.h"

namespace strata {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr char kBatch[] = "[batch]\nmicro = 1\naccumulate = 1\n";

// The whole error text of a config, or "" if it is fine. kBatch is put behind `text`, so that it changes no line number.
std::string Errors(const std::string& text) {
  const auto job = ParseJobConfig(text + kBatch, "run.toml");
  if (job.ok()) return "";
  EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(job.status().message());
}

std::string BatchErrors(const std::string& text) {
  const auto job = ParseJobConfig(text, "run.toml");
  return job.ok() ? "" : std::string(job.status().message());
}

// What the reader finds.

TEST(ConfigErrors, UnknownKey) {
  EXPECT_EQ(Errors("# first\n[optim]\nlr = 1\nweigth_decay = 0.1\n"),
            "error[E0107]: unknown key `weigth_decay` in [optim]\n"
            "  --> run.toml:4:1    did you mean `weight_decay`?");
  EXPECT_EQ(Errors("[optim]\n  steps = 4\n"),
            "error[E0107]: unknown key `steps` in [optim]\n"
            "  --> run.toml:2:3    did you mean `steps` in [schedule]?");
  EXPECT_EQ(Errors("[eval]\nbanana = 4\n"),
            "error[E0107]: unknown key `banana` in [eval]\n"
            "  --> run.toml:2:1    the keys of [eval] are every, batches");
  EXPECT_EQ(Errors("lr = 4\n"),
            "error[E0107]: unknown key `lr` outside of any section\n"
            "  --> run.toml:1:1    did you mean `lr` in [optim]?");
  EXPECT_EQ(Errors("[model]\n[model.attention]\nheads = 4\n"),
            "error[E0107]: unknown key `attention` in [model]\n"
            "  --> run.toml:2:8    the keys of [model] are from, arch, vocab, layers, dim, heads, kv_heads, head_dim, "
            "ffn, seq, rope_theta, rope_scaling, rope_factor, rope_low, rope_high, rope_original, norm_eps, tied, "
            "init_std");
}

TEST(ConfigErrors, AKeyOfEndlessPartsDoesNotExhaustTheStack) {
  const auto key = [](int parts) {
    std::string text;
    for (int i = 1; i < parts; ++i) text += "a.";
    return text + "a";
  };
  EXPECT_EQ(Errors("[run]\n[" + key(400'000) + "]\n"),
            "error[E0102]: a line with more than 1000 dots\n"
            "  --> run.toml:2:1");
  EXPECT_EQ(Errors("[" + key(1001) + "]\n" + key(1001) + " = 1\n").substr(0, 38),
            "error[E0106]: unknown section [a]\n  --");  // as deep as it can be
}

TEST(ConfigErrors, KeysOfAnotherArchitecture) {
  EXPECT_EQ(Errors("[model]\nkv_heads = 2\narch = \"gpt2\"\ndropuot = 0.1\n"),
            "error[E0107]: unknown key `kv_heads` in [model]\n"
            "  --> run.toml:2:1    model.arch = \"gpt2\" has no such key\n"
            "error[E0107]: unknown key `dropuot` in [model]\n"
            "  --> run.toml:4:1    did you mean `dropout`?");
  EXPECT_EQ(Errors("[model]\ndropout = 0.1\n"),
            "error[E0107]: unknown key `dropout` in [model]\n"
            "  --> run.toml:2:1    model.arch = \"llama\" has no such key");
}

TEST(ConfigErrors, UnknownSection) {
  EXPECT_EQ(Errors("[optm]\nlr = 1\n"),
            "error[E0106]: unknown section [optm]\n"
            "  --> run.toml:1:2    did you mean [optim]?");
  EXPECT_EQ(Errors("[banana]\n"),
            "error[E0106]: unknown section [banana]\n"
            "  --> run.toml:1:2    the sections are run, model, tokenizer, data, batch, optim, schedule, precision, "
            "parallel, memory, checkpoint, log, eval, guard");
}

TEST(ConfigErrors, WrongType) {
  EXPECT_EQ(Errors("[model]\ndim = \"256\"\n"),
            "error[E0108]: model.dim: expected an integer, found a string\n"
            "  --> run.toml:2:7");
  EXPECT_EQ(Errors("[schedule]\nsteps = 1e3\n"),
            "error[E0108]: schedule.steps: expected an integer, found a float\n"
            "  --> run.toml:2:9    did you mean 1000?");
  EXPECT_EQ(Errors("[optim]\nlr = true\n"),
            "error[E0108]: optim.lr: expected a number, found a boolean\n"
            "  --> run.toml:2:6");
  EXPECT_EQ(Errors("[model]\ntied = 1\n"),
            "error[E0108]: model.tied: expected true or false, found an integer\n"
            "  --> run.toml:2:8");
  EXPECT_EQ(Errors("[run]\nname = 1979-05-27\n"),
            "error[E0108]: run.name: expected a string, found a date\n"
            "  --> run.toml:2:8");
  EXPECT_EQ(Errors("[model]\narch = 1\n"),
            "error[E0108]: model.arch: expected a string, found an integer\n"
            "  --> run.toml:2:8");
  EXPECT_EQ(Errors("[optim]\nno_decay = \"*norm*\"\n"),
            "error[E0108]: optim.no_decay: expected an array of strings, found a string\n"
            "  --> run.toml:2:12");
  EXPECT_EQ(Errors("[optim]\nno_decay = [\"a\", 3]\n"),
            "error[E0108]: optim.no_decay: expected a string, found an integer\n"
            "  --> run.toml:2:18");
  EXPECT_EQ(Errors("model = 3\n"),
            "error[E0108]: model: expected a section, found an integer\n"
            "  --> run.toml:1:1    write [model] above its keys");
}

TEST(ConfigErrors, NotAChoice) {
  EXPECT_EQ(Errors("[schedule]\ntype = \"cosin\"\n"),
            "error[E0111]: schedule.type = \"cosin\": must be one of \"cosine\", \"linear\", \"wsd\"\n"
            "  --> run.toml:2:8    did you mean \"cosine\"?");
  EXPECT_EQ(
      Errors("[model]\narch = \"banana\"\n"),
      "error[E0111]: model.arch = \"banana\": must be one of \"llama\", \"gpt2\", \"bert\", \"qwen2\", \"qwen3\"\n"
      "  --> run.toml:2:8");
}

TEST(ConfigErrors, LogSinks) {
  EXPECT_EQ(Errors("[log]\nsinks = [\"jsonl\", \"tensorbord\"]\n"),
            "error[E0111]: log.sinks: \"tensorbord\" is none of jsonl, tensorboard, prometheus\n"
            "  --> run.toml:2:9    did you mean \"tensorboard\"?");
}

TEST(ConfigErrors, OutOfRange) {
  EXPECT_EQ(Errors("[optim]\nbeta1 = 2\n"),
            "error[E0110]: optim.beta1 = 2.0: must be from 0.0 to 0.999999\n"
            "  --> run.toml:2:9    nearest valid: 0.999999");
  EXPECT_EQ(Errors("[model]\nlayers = 0\n"),
            "error[E0110]: model.layers = 0: must be from 1 to 4096\n"
            "  --> run.toml:2:10    nearest valid: 1");
  EXPECT_THAT(Errors("[model]\nseq = 9223372036854775807\n"),
              HasSubstr("error[E0110]: model.seq = 9223372036854775807:"));
  EXPECT_THAT(Errors("[optim]\nlr = nan\n"), HasSubstr("error[E0110]: optim.lr = nan:"));
  EXPECT_THAT(Errors("[optim]\nlr = inf\n"), HasSubstr("nearest valid: 100.0"));
  EXPECT_THAT(Errors("[run]\nname = \"../x\"\n"), HasSubstr("error[E0110]: run.name = \"../x\":"));
  EXPECT_THAT(Errors("[optim]\nno_decay = [\"\"]\n"), HasSubstr("error[E0110]: optim.no_decay"));
}

TEST(ConfigErrors, SyntaxAndDuplicates) {
  EXPECT_EQ(Errors("[optim]\nlr = = 3\n"),
            "error[E0102]: could not determine value type\n"
            "  --> run.toml:2:6");
  EXPECT_THAT(Errors("[optim]\nlr = 1\nlr = 2\n"),
              testing::MatchesRegex("error.E0103.: cannot redefine existing integer 'lr'\n  --> run.toml:3:.*"));
  EXPECT_EQ(Errors("[optim]\nlr = 1\n[optim]\n"),
            "error[E0103]: cannot redefine existing table 'optim'\n"
            "  --> run.toml:3:1");
}

// What one field cannot tell.

TEST(ConfigErrors, ModelSizes) {
  EXPECT_EQ(Errors("[model]\ndim = 64\nheads = 7\nkv_heads = 7\n"),
            "error[E0201]: model.heads = 7: must divide model.dim = 64 into heads of even size\n"
            "  --> run.toml:3:9    nearest valid: 8");
  EXPECT_EQ(Errors("[model]\ndim = 64\nheads = 64\n"),  // head size 1
            "error[E0201]: model.heads = 64: must divide model.dim = 64 into heads of even size\n"
            "  --> run.toml:3:9    nearest valid: 32");
  EXPECT_EQ(Errors("[model]\nkv_heads = 3\n"),
            "error[E0201]: model.kv_heads = 3: must divide model.heads = 8\n"
            "  --> run.toml:2:12    nearest valid: 2");
  EXPECT_EQ(Errors("[model]\nheads = 4\n"),
            "error[E0201]: model.kv_heads = 8: must divide model.heads = 4\n"
            "  --> run.toml (model.kv_heads is not set there)    nearest valid: 4");
  EXPECT_EQ(Errors("[model]\nlayers = 4096\ndim = 262144\nffn = 1048576\n"),
            "error[E0203]: model.dim = 262144: the model would have 4503602848858112 parameters, the most is 10^13\n"
            "  --> run.toml:3:7");
}

TEST(ConfigErrors, ModelSizesOfOtherArchitectures) {
  EXPECT_EQ(Errors("[model]\narch = \"gpt2\"\ndim = 66\nheads = 8\n"),
            "error[E0201]: model.heads = 8: must divide model.dim = 66\n"
            "  --> run.toml:4:9    nearest valid: 6");
  EXPECT_EQ(Errors("[model]\narch = \"gpt2\"\ndim = 66\nheads = 22\n"), "");  // heads of size 3
  EXPECT_EQ(Errors("[model]\narch = \"bert\"\nvocab = 100\nmask_token = 100\n"),
            "error[E0110]: model.mask_token = 100: must be less than model.vocab = 100\n"
            "  --> run.toml:4:14    nearest valid: 99");
  EXPECT_EQ(Errors("[model]\narch = \"gpt2\"\npositions = 100\nseq = 101\n"),
            "error[E0202]: model.seq = 101: the model has learned positions for model.positions = 100 tokens\n"
            "  --> run.toml:4:7    nearest valid: 100");
  EXPECT_EQ(Errors("[model]\ndim = 66\nhead_dim = 7\n"),  // no longer dim / heads
            "error[E0201]: model.head_dim = 7: must be even: rotary positions turn pairs\n"
            "  --> run.toml:3:12    nearest valid: 8");
  EXPECT_EQ(Errors("[model]\nrope_scaling = \"llama3\"\nrope_low = 4\n"),
            "error[E0202]: model.rope_low = 4.0: must be less than model.rope_high = 4.0\n"
            "  --> run.toml:3:12");
  EXPECT_EQ(Errors("[model]\narch = \"gpt2\"\ndropout = 1\n"),
            "error[E0110]: model.dropout = 1.0: must be from 0.0 to 0.99\n"
            "  --> run.toml:3:11    nearest valid: 0.99");
}

TEST(ConfigErrors, TensorParallel) {
  EXPECT_EQ(Errors("[model]\nheads = 8\nkv_heads = 8\nffn = 100\n[parallel]\ntp = 8\n"),
            "error[E0201]: parallel.tp = 8: must divide model.ffn = 100\n"
            "  --> run.toml:6:6    nearest valid: 4");
  // Neither the vocabulary nor the key and value heads must divide.
  EXPECT_EQ(Errors("[model]\ndim = 192\nheads = 12\nkv_heads = 6\nvocab = 2051\n[parallel]\ntp = 4\n"), "");
  EXPECT_THAT(Errors("[parallel]\ntp = 3\n"), HasSubstr("must divide model.heads = 8"));
  EXPECT_EQ(Errors("[model]\nkv_heads = 2\n[parallel]\ntp = 4\n"), "");
  EXPECT_EQ(Errors("[model]\nseq = 60\n[parallel]\ntp = 8\n"), "");
  EXPECT_EQ(Errors("[model]\nseq = 60\n[parallel]\ntp = 8\nsequence_parallel = true\n"),
            "error[E0201]: parallel.tp = 8: must divide model.seq = 60 (parallel.sequence_parallel is on)\n"
            "  --> run.toml:4:6    nearest valid: 4");
  EXPECT_EQ(Errors("[parallel]\ndp = 4096\ntp = 8\n"),
            "error[E0203]: parallel.dp = 4096: dp * tp * pp = 32768 ranks, the most is 4096\n"
            "  --> run.toml:2:6    nearest valid: 512");
}

TEST(ConfigErrors, GradientsInBf16) {
  const auto errors = [](const std::string& compute, const std::string& rest) {
    return BatchErrors("[precision]\ncompute = \"" + compute + "\"\ngradients = \"bf16\"\n[batch]\nmicro = 4\n" + rest);
  };
  EXPECT_EQ(errors("bf16", "accumulate = 1\n"), "");
  EXPECT_EQ(errors("float32", "accumulate = 1\n"),
            "error[E0202]: precision.gradients = \"bf16\": needs precision.compute = \"bf16\"\n"
            "  --> run.toml:3:13    nearest valid: \"float32\"");
  EXPECT_EQ(errors("bf16", "accumulate = 4\n"),
            "error[E0202]: precision.gradients = \"bf16\": needs batch.accumulate = 1, not 4: the gradients of "
            "micro-batches add up in float32\n"
            "  --> run.toml:3:13    nearest valid: \"float32\"");
  EXPECT_THAT(errors("bf16", "tokens = 4096\n[model]\nseq = 256\n"), HasSubstr("not 4:"));  // 4096 / (4 * 256)
  EXPECT_EQ(
      errors("bf16", "accumulate = 4\n[parallel]\npp = 2\n"),
      "error[E0202]: precision.gradients = \"bf16\": needs parallel.pp = 1: a pipeline adds up the gradients of its "
      "micro-batches, in float32\n"
      "  --> run.toml:3:13    nearest valid: \"float32\"");
}

TEST(ConfigErrors, MastersInHalves) {
  EXPECT_EQ(Errors("[precision]\ncompute = \"bf16\"\nmaster = \"split\"\n"), "");
  EXPECT_EQ(Errors("[precision]\nmaster = \"split\"\n"),
            "error[E0202]: precision.master = \"split\": needs precision.compute = \"bf16\"\n"
            "  --> run.toml:2:10    nearest valid: \"float32\"");
}

TEST(ConfigErrors, Pipeline) {
  const auto errors = [](const std::string& parallel, int accumulate) {
    return BatchErrors(absl::StrFormat("[model]\nlayers = 8\n[batch]\nmicro = 1\naccumulate = %d\n[parallel]\n%s",
                                       accumulate, parallel));
  };
  EXPECT_EQ(errors("pp = 4\n", 1), "");
  EXPECT_EQ(errors("pp = 4\nschedule = \"interleaved\"\n", 4), "");
  EXPECT_EQ(errors("pp = 4\nschedule = \"interleave\"\n", 4),
            "error[E0111]: parallel.schedule = \"interleave\": must be one of gpipe, 1f1b, interleaved, breadth-first, "
            "chimera, bitpipe, zb-h1, zbv, dualpipe, dualpipe-v, greedy\n"
            "  --> run.toml:8:12    nearest valid: \"interleaved\"");
  EXPECT_THAT(errors("pp = 4\nschedule = \"interleaved\"\n", 2),
              AllOf(HasSubstr("error[E0202]: parallel.schedule = \"interleaved\": with pp = 4 ranks and "
                              "batch.accumulate = 2 micro-batches: "),
                    HasSubstr("nearest legal: 4 micro-batches, or 2 ranks"), HasSubstr("run.toml:8:12")));
  EXPECT_THAT(errors("pp = 3\nschedule = \"chimera\"\n", 6), HasSubstr("an even number of ranks"));
  EXPECT_THAT(errors("pp = 2\nschedule = \"zbv\"\nvirtual_stages = 3\n", 4), HasSubstr("nearest legal: 2"));
  EXPECT_EQ(errors("pp = 18\n", 4), "");
  EXPECT_EQ(
      errors("pp = 19\n", 4),
      "error[E0203]: parallel.pp = 19: makes 19 stages, but embedding, 8 layers of 2 parts and head are at most 18\n"
      "  --> run.toml:7:6    nearest valid: 18");
  EXPECT_EQ(
      errors("pp = 2\nstage_layout = \"E,0-2 | 4-7,H\"\n", 4),
      "error[E0202]: parallel.stage_layout = \"E,0-2 | 4-7,H\": block 4 where block 3 is next: blocks are in order "
      "and none is left out; legal would be \"E,0-3 | 4-7,H\"\n"
      "  --> run.toml:8:16");
  EXPECT_EQ(errors("pp = 2\nstage_layout = \"E,0-3a | 3b-7,H\"\n", 4), "");
  EXPECT_EQ(
      errors("pp = 2\nstage_layout = \"E,0-3a | 4-7,H\"\n", 4),
      "error[E0202]: parallel.stage_layout = \"E,0-3a | 4-7,H\": block 4 where block 3b is next: blocks are in order "
      "and none is left out; legal would be \"E,0-3 | 4-7,H\"\n"
      "  --> run.toml:8:16");
  EXPECT_THAT(errors("pp = 2\nstage_layout = \"E,0-3c | 4-7,H\"\n", 4),
              HasSubstr("block 3 has the parts a to b, and no c; legal would be \"E,0-3 | 4-7,H\""));
  EXPECT_THAT(errors("schedule = \"gpipe\"\nvirtual_stages = 2\nstage_layout = \"E,0-7,H\"\n", 4),
              AllOf(HasSubstr("parallel.schedule = \"gpipe\": needs parallel.pp > 1\n"),
                    HasSubstr("parallel.virtual_stages = 2: needs parallel.pp > 1\n"),
                    HasSubstr("parallel.stage_layout = \"E,0-7,H\": needs parallel.pp > 1\n")));
}

TEST(ConfigErrors, Schedule) {
  EXPECT_EQ(Errors("[schedule]\nsteps = 50\nwarmup = 51\n"),
            "error[E0202]: schedule.warmup = 51: must be at most schedule.steps = 50\n"
            "  --> run.toml:3:10    nearest valid: 50");
  EXPECT_EQ(Errors("[schedule]\ndecay = 5\n"),
            "error[E0202]: schedule.decay = 5: is used by schedule.type = \"wsd\" only\n"
            "  --> run.toml:2:9    nearest valid: 0");
  EXPECT_EQ(Errors("[schedule]\ntype = \"wsd\"\nsteps = 50\nwarmup = 20\ndecay = 31\n"),
            "error[E0202]: schedule.decay = 31: must be at most schedule.steps - schedule.warmup = 30\n"
            "  --> run.toml:5:9    nearest valid: 30");
  EXPECT_EQ(Errors("[schedule]\ntype = \"wsd\"\nsteps = 50\nwarmup = 20\ndecay = 30\n"), "");
}

TEST(ConfigErrors, LinearScalingNeedsItsBatch) {
  EXPECT_EQ(
      Errors("[schedule]\nscaling = \"linear\"\n"),
      "error[E0202]: schedule.base_tokens = 0: is needed by schedule.scaling = \"linear\": the batch that optim.lr "
      "was chosen for\n"
      "  --> run.toml (schedule.base_tokens is not set there)");
  EXPECT_EQ(Errors("[schedule]\nbase_tokens = 64\n"),
            "error[E0202]: schedule.base_tokens = 64: is used by schedule.scaling = \"linear\" only\n"
            "  --> run.toml:2:15    nearest valid: 0");
}

TEST(ConfigErrors, OptimizersHaveKeysOfTheirOwn) {
  EXPECT_EQ(Errors("[optim]\ntype = \"sgd\"\nmomentum = 0.8\nnesterov = true\n"), "");
  EXPECT_EQ(Errors("[optim]\nbeta1 = 0.8\ntype = \"sgd\"\n"),
            "error[E0107]: unknown key `beta1` in [optim]\n"
            "  --> run.toml:2:1    optim.type = \"sgd\" has no such key");
  EXPECT_EQ(Errors("[optim]\ntype = \"sgd\"\nmomentum = 0\nnesterov = true\n"),
            "error[E0202]: optim.nesterov = true: needs optim.momentum, which is 0\n"
            "  --> run.toml:4:12    nearest valid: false");
}

TEST(ConfigErrors, SourcesOfTrainingTokens) {
  EXPECT_EQ(Errors("[data]\ntrain = 3\n"),
            "error[E0108]: data.train: expected a path or an array of tables {path, weight}, found an integer\n"
            "  --> run.toml:2:9");
  EXPECT_EQ(Errors("[data]\ntrain = []\n"), "error[E0109]: data.train: the list is empty\n  --> run.toml:2:9");
  EXPECT_EQ(Errors("[data]\ntrain = [\n  {path = \"a\", wieght = 2},\n  {weight = 0, path = \"b\"},\n  \"c\",\n"
                   "  {weight = \"1\"},\n  {path = 7, weight = inf},\n  {path = \"\", sepoch = 1},\n]\n"),
            "error[E0107]: unknown key `wieght` in data.train[0]\n"
            "  --> run.toml:3:16    did you mean `weight`?\n"
            "error[E0110]: data.train[1].weight = 0.0: must be above 0 and finite\n"
            "  --> run.toml:4:13\n"
            "error[E0108]: data.train[2]: expected a table {path, weight}, found a string\n"
            "  --> run.toml:5:3\n"
            "error[E0109]: data.train[3]: path is not set\n"
            "  --> run.toml:6:3\n"
            "error[E0108]: data.train[3].weight: expected a number, found a string\n"
            "  --> run.toml:6:13\n"
            "error[E0108]: data.train[4].path: expected a string, found an integer\n"
            "  --> run.toml:7:11\n"
            "error[E0110]: data.train[4].weight = inf: must be above 0 and finite\n"
            "  --> run.toml:7:23\n"
            "error[E0109]: data.train[5].path is empty\n"
            "  --> run.toml:8:11\n"
            "error[E0107]: unknown key `sepoch` in data.train[5]\n"
            "  --> run.toml:8:15    its keys are path, weight");
  EXPECT_EQ(Errors("[data]\ntrain = [{path = \"a\", weight = 1e-9}, {path = \"b\", weight = 2}]\n"),
            "error[E0110]: data.train: weight 1e-09 of a is less than a part of 1e-09 of all weights\n"
            "  --> run.toml:2:9");
  EXPECT_EQ(Errors("[data]\ntrain = \"a\"\nprefetch = -1\n"),
            "error[E0110]: data.prefetch = -1: must be from 0 to 1024 batches\n"
            "  --> run.toml:3:12    nearest valid: 0");
}

TEST(ConfigErrors, EvaluationNeedsValidationTokens) {
  EXPECT_EQ(Errors("[eval]\nevery = 5\n"),
            "error[E0202]: eval.every = 5: needs data.valid, which is not set\n"
            "  --> run.toml:2:9    nearest valid: 0");
  EXPECT_EQ(Errors("[data]\nvalid = \"v\"\n[eval]\nevery = 5\n"), "");
}

TEST(ConfigErrors, MistakesOfTheCommandLineAreAddressedToIt) {
  const std::pair<const char*, const char*> kCases[] = {
      {"optim.lr=x", "error[E0102]: could not determine value type\n  --> --set optim.lr=x"},
      {"optim.lr=true", "error[E0108]: optim.lr: expected a number, found a boolean\n  --> --set optim.lr=true"},
      {"optim.lr=-1", "error[E0110]: optim.lr = -1.0: must be from 0.0 to 100.0\n  --> --set optim.lr=-1    nearest "},
      {"optim.lrr=1", "error[E0107]: unknown key `lrr` in [optim]\n  --> --set optim.lrr=1    did you mean `lr`?"},
      {"optm.lr=1", "error[E0106]: unknown section [optm]\n  --> --set optm.lr=1    did you mean [optim]?"},
      {"model.arch=lama",
       "error[E0111]: model.arch = \"lama\": must be one of \"llama\", \"gpt2\", \"bert\", \"qwen2\", \"qwen3\"\n  --> "
       "--set model.arch=lama "
       "   did you mean "
       "\"llama\"?"},
      {"model.heads=3", "  --> --set model.heads=3    nearest valid: "},
      {"lr=1", "error[E0102]: expected SECTION.KEY=VALUE\n  --> --set lr=1    such as optim.lr=0.001"},
      {"optim.lr", "error[E0102]: expected SECTION.KEY=VALUE\n  --> --set optim.lr    such as optim.lr=0.001"},
      {"=1", "error[E0102]: expected SECTION.KEY=VALUE\n  --> --set =1    such as optim.lr=0.001"},
      {"optim.lr=1\nbeta1=1", "error[E0102]: optim.lr: the value is of more than one line\n"},
      {"data.train=[{path=\"a\", weight=-1}]",
       "error[E0110]: data.train[0].weight = -1.0: must be above 0 and finite\n  --> --set data.train=[{"},
      {"optim.lr=1 # ok", ""},
  };
  for (const auto& [argument, expected] : kCases) {
    const auto job = ParseJobConfig(kBatch, "run.toml", {argument});
    EXPECT_THAT(job.ok() ? "" : std::string(job.status().message()), HasSubstr(expected)) << argument;
    EXPECT_EQ(job.ok(), *expected == '\0');
  }
}

TEST(ConfigErrors, IsolatedDocumentsNeedCausalAttention) {
  EXPECT_EQ(Errors("[model]\narch = \"bert\"\n[data]\npacking = \"isolate\"\n"),
            "error[E0202]: data.packing = \"isolate\": needs causal attention, which model.arch = \"bert\" has not\n"
            "  --> run.toml:4:11    nearest valid: \"concat\"");
  EXPECT_EQ(Errors("[model]\narch = \"bert\"\n[data]\npacking = \"concat\"\n"), "");
  EXPECT_EQ(Errors("[model]\narch = \"gpt2\"\n[data]\npacking = \"isolate\"\n"), "");
}

TEST(ConfigErrors, Memory) {
  EXPECT_EQ(Errors("[memory]\nlimit = \"16GiB\"\nrecompute = \"auto\"\n"), "");
  EXPECT_EQ(
      Errors("[memory]\nlimit = \"16 gigs\"\nrecompute = \"blocks\"\nrecompute_blocks = 5\n"),
      "error[E0110]: memory.limit = \"16 gigs\": must be a number of B, KiB, MiB, GiB, TiB, kB, MB, GB or TB, above "
      "0: \"16GiB\"\n"
      "  --> run.toml:2:9\n"
      "error[E0111]: memory.recompute = \"blocks\": must be one of \"none\", \"selective\", \"block\", \"auto\"\n"
      "  --> run.toml:3:13    did you mean \"block\"?\n"
      "error[E0110]: memory.recompute_blocks = 5: must be at most model.layers = 4\n"
      "  --> run.toml:4:20    nearest valid: 4");
  EXPECT_EQ(Errors("[memory]\nrecompute = \"auto\"\n"),
            "error[E0202]: memory.recompute = \"auto\": is the least recompute within memory.limit, which is not set\n"
            "  --> run.toml:2:13");
}

TEST(ConfigErrors, AllAtOnceInTheOrderOfTheFileAndEachOnce) {
  EXPECT_EQ(Errors("[parallel]\ntp = 5\n"  // heads is wrong itself: no word of tp against it, but of the others
                   "[model]\nheads = \"8\"\nlayer = 3\n"
                   "[optim]\nlr = -1\n"
                   "[schedul]\nsteps = 5\n"),
            "error[E0201]: parallel.tp = 5: must divide model.ffn = 704\n"
            "  --> run.toml:2:6\n"
            "error[E0108]: model.heads: expected an integer, found a string\n"
            "  --> run.toml:4:9\n"
            "error[E0107]: unknown key `layer` in [model]\n"
            "  --> run.toml:5:1    did you mean `layers`?\n"
            "error[E0110]: optim.lr = -1.0: must be from 0.0 to 100.0\n"
            "  --> run.toml:7:6    nearest valid: 0.0\n"
            "error[E0106]: unknown section [schedul]\n"
            "  --> run.toml:8:2    did you mean [schedule]?");
}

// Batch arithmetic; dp 2 and seq 64 where not said otherwise.

constexpr char kTwoRanks[] = "[model]\nseq = 64\n[parallel]\ndp = 2\n[batch]\n";  // keys of [batch] start on line 6

BatchConfig Batch(const std::string& keys) {
  const auto job = ParseJobConfig(kTwoRanks + keys, "run.toml");
  EXPECT_TRUE(job.ok()) << job.status().message();
  return job.ok() ? job->config.batch : BatchConfig{};
}

TEST(ConfigBatch, AnyTwoGiveTheThird) {
  const BatchConfig want{.tokens = 3072, .micro = 4, .accumulate = 6};
  EXPECT_EQ(Batch("micro = 4\naccumulate = 6\n"), want);
  EXPECT_EQ(Batch("tokens = 3072\naccumulate = 6\n"), want);
  EXPECT_EQ(Batch("tokens = 3072\nmicro = 4\n"), want);
  EXPECT_EQ(Batch("tokens = 3072\nmicro = 4\naccumulate = 6\n"), want);
}

TEST(ConfigBatch, WhatDoesNotDivideOrContradicts) {
  const std::string two_ranks = kTwoRanks;
  EXPECT_EQ(BatchErrors(two_ranks + "tokens = 3000\nmicro = 4\n"),
            "error[E0201]: batch.tokens = 3000: must be a multiple of batch.micro * parallel.dp * model.seq = "
            "4 * 2 * 64 = 512\n"
            "  --> run.toml:6:10    nearest valid: 3072");
  EXPECT_EQ(BatchErrors(two_ranks + "accumulate = 4\ntokens = 1\n"),
            "error[E0201]: batch.tokens = 1: must be a multiple of batch.accumulate * parallel.dp * model.seq = "
            "4 * 2 * 64 = 512\n"
            "  --> run.toml:7:10    nearest valid: 512");
  EXPECT_EQ(BatchErrors(two_ranks + "tokens = 512\nmicro = 4\naccumulate = 2\n"),
            "error[E0202]: batch.tokens = 512: micro * accumulate * parallel.dp * model.seq = 4 * 2 * 2 * 64 = 1024; "
            "leave one out\n"
            "  --> run.toml:6:10    nearest valid: 1024");
}

TEST(ConfigBatch, NeedsTwo) {
  EXPECT_EQ(BatchErrors(""),
            "error[E0109]: [batch] needs two of tokens, micro and accumulate; 0 given\n"
            "  --> run.toml (batch.tokens is not set there)");
  EXPECT_EQ(BatchErrors("[batch]\nmicro = 3\n"),
            "error[E0109]: [batch] needs two of tokens, micro and accumulate; 1 given\n"
            "  --> run.toml:2:9");
}

TEST(ConfigBatch, NothingOverflows) {
  const std::string big = "[model]\nseq = 16777216\n[parallel]\ndp = 4096\n[batch]\n";
  EXPECT_EQ(
      BatchErrors(big + "micro = 4294967296\naccumulate = 4294967296\n"),
      "error[E0203]: batch.micro = 4294967296: a micro-batch of micro * model.seq = 72057594037927936 tokens, the "
      "most is 2^31 - 1\n"
      "  --> run.toml:6:9");
  EXPECT_EQ(BatchErrors(big + "micro = 1\naccumulate = 4294967296\n"),
            "error[E0203]: batch.accumulate = 4294967296: the batch would be of 295147905179352825856 tokens or more, "
            "the most is 4294967296\n"
            "  --> run.toml:7:14");
  EXPECT_THAT(BatchErrors(big + "micro = 1\ntokens = 4096\n"), HasSubstr("error[E0203]: batch.micro = 1:"));
  EXPECT_THAT(BatchErrors("[batch]\ntokens = 4294967296\naccumulate = 1\n"), HasSubstr("error[E0203]: batch.micro"));
}

// Tables and helpers.

TEST(ConfigErrors, CodesAreDistinctAndEveryKindHasOne) {
  std::set<std::string_view> codes;
  for (const ErrorCode& row : kErrorCodes) codes.insert(row.code);
  EXPECT_EQ(codes.size(), std::size(kErrorCodes));
  EXPECT_EQ(std::size(kErrorCodes), static_cast<size_t>(ConfigErrorKind::kMismatch) + 1);
  EXPECT_EQ(CodeOf(ConfigErrorKind::kUnknownKey), "E0107");
}

TEST(ConfigErrors, LaterChecksPointIntoTheFileToo) {
  const auto job = ParseJobConfig(std::string("[model]\nvocab = 4096\n") + kBatch, "run.toml");
  ASSERT_TRUE(job.ok());
  ConfigChecks checks;
  checks.Add(ConfigErrorKind::kMismatch, "model.vocab", "4096", "the tokenizer has 2048 pieces", "2048");
  EXPECT_EQ(ConfigError(job->provenance, checks.issues()).message(),
            "error[E0205]: model.vocab = 4096: the tokenizer has 2048 pieces\n"
            "  --> run.toml:2:9    nearest valid: 2048");
  EXPECT_TRUE(ConfigError(job->provenance, {}).ok());
}

TEST(Nearest, DistanceAndChoice) {
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("weigth", "weight"), 1);  // a swap
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("same", "same"), 0);
  const std::vector<std::string> names = {"dp", "tp", "heads", "kv_heads"};
  EXPECT_EQ(NearestName("head", names), "heads");
  EXPECT_EQ(NearestName("kvheads", names), "kv_heads");
  EXPECT_EQ(NearestName("pp", names), "dp");
  EXPECT_EQ(NearestName("banana", names), "");
  EXPECT_EQ(NearestName(std::string(1000, 'x'), names), "");
}

}  // namespace
}  // namespace strata
