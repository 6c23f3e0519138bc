#include "launch/config/job_config.h"

#include <algorithm>
#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/bytes.h"
#include "launch/config/batch.h"
#include "launch/config/nearest.h"
#include "launch/config/pipeline.h"
#include "models/model.h"

namespace strata {
namespace {

constexpr int64_t kMaxSteps = 1'000'000'000;
constexpr int64_t kMaxRanks = 4096;
constexpr double kMinShare = 1e-9;  // of a source's weight; the mixture counts in 2^-32

static_assert(static_cast<int>(DType::kF64) == 0 && static_cast<int>(DType::kF32) == 1 &&
              static_cast<int>(DType::kBF16) == 2);

// What tp cuts evenly: the number it must divide, by key. Key and value heads that it does not divide are replicated.
std::vector<KeyedInt> CutByTp(const JobConfig& job) {
  const ModelConfig& m = job.model;
  std::vector<KeyedInt> cut = {{"model.heads", m.heads}, {"model.ffn", m.ffn}};
  if (job.parallel.sequence_parallel) cut.push_back({"model.seq", m.seq});
  return cut;
}

int64_t NearestTp(std::span<const KeyedInt> cut, int64_t tp) {
  const auto fits = [&](const KeyedInt& number) { return number.value % tp == 0; };
  while (!std::all_of(cut.begin(), cut.end(), fits)) --tp;  // 1 always fits
  return tp;
}

void CheckTp(const JobConfig& job, ConfigChecks& c) {
  const int64_t tp = job.parallel.tp;
  if (!c.Ok({"parallel.tp"})) return;
  const std::vector<KeyedInt> cut = CutByTp(job);
  const bool sizes_ok = std::all_of(cut.begin(), cut.end(), [&](auto& number) { return c.Ok({number.key}); });
  const std::string nearest = sizes_ok ? absl::StrCat(NearestTp(cut, tp)) : "";
  for (const KeyedInt& number : cut) {
    if (number.value % tp == 0 || !c.Ok({number.key})) continue;
    const char* const why = number.key == "model.seq" ? " (parallel.sequence_parallel is on)" : "";
    c.Add(ConfigErrorKind::kIndivisible, "parallel.tp", absl::StrCat(tp),
          absl::StrFormat("must divide %s = %d%s", number.key, number.value, why), nearest);
  }
}

void CheckRecompute(const JobConfig& job, ConfigChecks& c) {
  const MemoryConfig& m = job.memory;
  if (m.recompute == Recompute::kAuto && m.limit.empty() && c.Ok({"memory.limit", "memory.recompute"})) {
    c.Add(ConfigErrorKind::kContradiction, "memory.recompute", "\"auto\"",
          "is the least recompute within memory.limit, which is not set");
  }
  if (!c.Ok({"memory.recompute_blocks", "model.layers"}) || m.recompute_blocks <= job.model.layers) return;
  c.Add(ConfigErrorKind::kOutOfRange, "memory.recompute_blocks", absl::StrCat(m.recompute_blocks),
        absl::StrFormat("must be at most model.layers = %d", job.model.layers), absl::StrCat(job.model.layers));
}

void CheckRanks(const JobConfig& job, ConfigChecks& c) {
  if (!c.Ok({"parallel.dp", "parallel.tp", "parallel.pp"}) || job.parallel.ranks() <= kMaxRanks) return;
  c.Add(ConfigErrorKind::kTooLarge, "parallel.dp", absl::StrCat(job.parallel.dp),
        absl::StrFormat("dp * tp * pp = %d ranks, the most is %d", job.parallel.ranks(), kMaxRanks),
        absl::StrCat(std::max<int64_t>(1, kMaxRanks / (job.parallel.tp * job.parallel.pp))));
}

void CheckZero(const JobConfig& job, ConfigChecks& c) {
  if (c.Ok({"parallel.dp", "parallel.zero", "parallel.dp_inner"})) job.parallel.zero.Check(c, job.parallel.dp);
}

// Sums of gradients are never rounded on the way, so bf16 is for those that are made at once.
void CheckGradients(const JobConfig& job, ConfigChecks& c) {
  if (job.precision.gradients == GradientFormat::kFloat32 || !c.Ok({"precision.gradients"})) return;
  const auto refuse = [&](const std::string& expected) {
    c.Add(ConfigErrorKind::kContradiction, "precision.gradients", "\"bf16\"", expected, "\"float32\"");
  };
  if (c.Ok({"precision.compute"}) && job.precision.compute != DType::kBF16) {
    return refuse("needs precision.compute = \"bf16\"");
  }
  if (c.Ok({"parallel.pp"}) && job.parallel.pp > 1) {
    return refuse("needs parallel.pp = 1: a pipeline adds up the gradients of its micro-batches, in float32");
  }
  if (!c.Ok({"batch.tokens", "batch.micro", "batch.accumulate"}) || job.batch.accumulate <= 1) return;
  refuse(absl::StrFormat("needs batch.accumulate = 1, not %d: the gradients of micro-batches add up in float32",
                         job.batch.accumulate));
}

void CheckMaster(const JobConfig& job, ConfigChecks& c) {
  if (job.precision.master == MasterFormat::kFloat32 || !c.Ok({"precision.master", "precision.compute"})) return;
  if (job.precision.compute == DType::kBF16) return;
  c.Add(ConfigErrorKind::kContradiction, "precision.master", "\"split\"", "needs precision.compute = \"bf16\"",
        "\"float32\"");
}

void CheckEval(const JobConfig& job, ConfigChecks& c) {
  if (job.eval.every == 0 || !job.data.valid.empty() || !c.Ok({"eval.every", "data.valid"})) return;
  c.Add(ConfigErrorKind::kContradiction, "eval.every", absl::StrCat(job.eval.every),
        "needs data.valid, which is not set", "0");
}

void CheckPacking(const JobConfig& job, ConfigChecks& c) {
  if (job.data.packing != Packing::kIsolate || !c.Ok({"data.packing", "model.arch"})) return;
  if (ModelOf(job.model.arch).attention == AttentionMask::kCausal) return;
  c.Add(ConfigErrorKind::kContradiction, "data.packing", "\"isolate\"",
        absl::StrFormat("needs causal attention, which model.arch = \"%s\" has not",
                        kModelArchNames[static_cast<size_t>(job.model.arch)]),
        "\"concat\"");
}

// A section whose keys depend on `choice`, one of its own.
template <class Config, class Choice>
ConfigSection SectionOfKind(std::string name, std::string_view doc, Config& config, Choice Config::*choice,
                            std::string_view choice_name, std::span<const std::string_view> names) {
  ConfigSection section{name, doc, DescribeFields(config)};
  const auto has = [&](const ConfigField& f) {
    return std::any_of(section.fields.begin(), section.fields.end(), [&](auto& mine) { return mine.name == f.name; });
  };
  section.kind = absl::StrFormat("%s.%s = \"%s\"", name, choice_name, names[static_cast<size_t>(config.*choice)]);
  for (size_t i = 0; i < names.size(); ++i) {
    Config other;
    other.*choice = static_cast<Choice>(i);
    for (const ConfigField& field : DescribeFields(other)) {
      if (!has(field)) section.keys_of_others.push_back(field.name);
    }
  }
  return section;
}

}  // namespace

void RunConfig::Describe(ConfigFields& f) {
  f.Add("name", name, {.doc = "name of the run: letters, digits, '-', '_' and '.'"});
  f.Add("seed", seed, {.doc = "of the initial weights and the order of the data", .min = 0});
  f.AddChoice("device", device, kDeviceNames,
              {.doc = "where to compute; auto: a GPU where there is one that can run the job"});
  f.Add("deterministic", deterministic, {.doc = "on a GPU, only kernels that give the same bits every time"});
  f.Add("out", out, {.doc = "folder of logs and checkpoints; empty = runs/NAME", .is_path = true});
}

void RunConfig::Check(ConfigChecks& c) const {
  bool good = !name.empty() && name[0] != '.' && name.size() <= 100;
  for (char ch : name) {
    good = good && ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '-' ||
                    ch == '_' || ch == '.');
  }
  if (good) return;
  c.Add(ConfigErrorKind::kOutOfRange, "run.name", absl::StrFormat("\"%s\"", name),
        "must be 1 to 100 letters, digits, '-', '_' or '.', and not begin with '.'");
}

void TokenizerConfig::Describe(ConfigFields& f) {
  f.Add("path", path, {.doc = "a SentencePiece model, a tokenizer.json, or a folder that has one", .is_path = true});
}

void DataConfig::Describe(ConfigFields& f) {
  f.Add(
      "train", train,
      {.doc = "training tokens: PREFIX of PREFIX.bin and PREFIX.idx; of several, samples by weight", .is_path = true});
  f.Add("valid", valid, {.doc = "validation tokens: PREFIX; empty = no evaluation", .is_path = true});
  f.AddChoice("packing", packing, kPackingNames,
              {.doc = "documents that share a row: \"concat\" reads on, \"isolate\" keeps them apart (causal models)"});
  f.Add("prefetch", prefetch,
        {.doc = "prepared ahead on a thread of their own; 0 = none", .unit = "batches", .min = 0, .max = 1024});
}

void DataConfig::Check(ConfigChecks& c) const {
  double sum = 0;
  for (const WeightedPath& source : train) sum += source.weight;
  for (const WeightedPath& source : train) {
    if (source.weight >= kMinShare * sum || !c.Ok({"data.train"})) continue;
    c.Add({ConfigErrorKind::kOutOfRange, "data.train",
           absl::StrFormat("data.train: weight %s of %s is less than a part of %s of all weights",
                           FormatDouble(source.weight), source.path, FormatDouble(kMinShare))});
  }
}

void BatchConfig::Describe(ConfigFields& f) {
  f.Add("tokens", tokens,
        {.doc = "global batch of a step; 0 = follows", .unit = "tokens", .min = 0, .max = kMaxBatchTokens});
  f.Add("micro", micro,
        {.doc = "micro-batch of a data-parallel rank; 0 = follows",
         .unit = "sequences",
         .min = 0,
         .max = kMaxBatchTokens});
  f.Add("accumulate", accumulate, {.doc = "micro-batches of a step; 0 = follows", .min = 0, .max = kMaxBatchTokens});
}

void PrecisionConfig::Describe(ConfigFields& f) {
  f.AddChoice("compute", compute, kComputeNames, {.doc = "of weights, activations and their gradients"});
  f.AddChoice("gradients", gradients, kGradientFormatNames,
              {.doc = "of weight gradients (with compute = \"float64\" float64); bf16: each is rounded once, where one "
                      "product makes it; takes compute = \"bf16\" and batch.accumulate = 1"});
  f.AddChoice(
      "master", master, kMasterFormatNames,
      {.doc = "of the weights that updates are added to, where compute = \"bf16\"; split: the same float32 in the bf16 "
              "weights, rounded half up, and 16 more bits, 2 bytes a weight less"});
}

void ParallelConfig::Describe(ConfigFields& f) {
  f.Add("dp", dp, {.doc = "data-parallel ranks", .min = 1, .max = kMaxRanks});
  f.Add("tp", tp, {.doc = "tensor-parallel ranks; must divide heads and ffn", .min = 1, .max = kMaxRanks});
  f.Add("sequence_parallel", sequence_parallel,
        {.doc = "between the products of a block, tp ranks share out the sequence; tp must divide seq"});
  f.Add("keep_gathered", keep_gathered,
        {.doc = "with sequence_parallel: backward reuses the whole sequences that forward gathered; else it gathers "
                "again, in less memory"});
  f.Add("pp", pp, {.doc = "pipeline ranks: the layers are cut into stages", .min = 1, .max = kMaxRanks});
  f.Add("schedule", schedule,
        {.doc = "order of the micro-batches in the pipeline: \"1f1b\", \"interleaved\", \"zbv\", ... (pipeline.md)"});
  f.Add("schedule_file", schedule_file, {.doc = "a schedule written by hand, in place of `schedule`", .is_path = true});
  f.Add("virtual_stages", virtual_stages,
        {.doc = "stages of a pipeline rank; 0 = as is usual for the schedule", .min = 0, .max = kMaxRanks});
  f.Add("stage_layout", stage_layout, {.doc = "which layers each stage has (pipeline.md); auto: alike in time"});
  f.Add("resident_stages", resident_stages,
        {.doc =
             "zero = 3 in a pipeline: stages whose gathered weights a rank keeps from one micro-batch to the next; 0 = "
             "none: gathered for each, block by block",
         .min = 0,
         .max = kMaxRanks});
  f.AddChoice(
      "overlap", overlap, kOverlapNames,
      {.doc = "collectives, transfers and updates on streams beside the computing; auto: with several ranks on GPUs"});
  f.Add(
      "overlap_groups", overlap_groups,
      {.doc = "with overlap: into how many groups of a micro-batch's rows products are split, so that tensor-parallel "
              "collectives of one group run beside the product of another; 1: not",
       .min = 1,
       .max = 32});
  f.AddChoice(
      "reduce_scatter", reduce_scatter, kReduceScatterByNames,
      {.doc = "who adds up: the transport, as it sends; or, exchange, a kernel in its turn, of shards that "
              "were copied: more memory, no blocks beside products; auto: exchange between GPUs of one process"});
  zero.Describe(f);
  comm.Describe(f);
}

void MemoryConfig::Describe(ConfigFields& f) {
  f.Add("limit", limit,
        {.doc = "what a rank may take of its device at most, on a GPU with what CUDA and NCCL take: \"16GiB\"; empty = "
                "no limit"});
  f.AddChoice("recompute", recompute, kRecomputeNames,
              {.doc = "backward redoes activations instead of keeping them: norms and activation functions "
                      "(\"selective\"), all of a block but its input (\"block\"), the least within limit (\"auto\")"});
  f.Add("recompute_blocks", recompute_blocks,
        {.doc = "recompute in so many blocks, the first ones; 0 = all", .min = 0, .max = 4096});
}

int64_t MemoryConfig::limit_bytes() const { return limit.empty() ? 0 : ParseBytes(limit).value_or(0); }

void MemoryConfig::Check(ConfigChecks& c) const {
  if (limit.empty()) return;
  const absl::StatusOr<int64_t> bytes = ParseBytes(limit);
  if (bytes.ok() && *bytes > 0) return;
  c.Add(ConfigErrorKind::kOutOfRange, "memory.limit", absl::StrFormat("\"%s\"", limit),
        "must be a number of B, KiB, MiB, GiB, TiB, kB, MB, GB or TB, above 0: \"16GiB\"");
}

void CheckpointConfig::Describe(ConfigFields& f) {
  f.Add("every", every,
        {.doc = "save every so many; 0 = only at the end", .unit = "steps", .min = 0, .max = kMaxSteps});
  f.Add("keep", keep, {.doc = "newest checkpoints that are kept", .min = 1, .max = 1e6});
  f.Add("async", async, {.doc = "write them while training goes on, from two copies in host memory"});
}

void LogConfig::Describe(ConfigFields& f) {
  f.Add("every", every, {.doc = "write metrics every so many", .unit = "steps", .min = 1, .max = kMaxSteps});
  f.Add("sinks", sinks, {.doc = "where to, below run.out: \"jsonl\", \"tensorboard\", \"prometheus\""});
}

void LogConfig::Check(ConfigChecks& c) const {
  const std::vector<std::string> known(std::begin(kSinkNames), std::end(kSinkNames));
  for (const std::string& sink : sinks) {
    if (std::find(known.begin(), known.end(), sink) != known.end()) continue;
    const std::string nearest = NearestName(sink, known);
    c.Add({ConfigErrorKind::kNotAChoice, "log.sinks",
           absl::StrFormat("log.sinks: \"%s\" is none of %s", sink, absl::StrJoin(known, ", ")),
           nearest.empty() ? "" : absl::StrFormat("did you mean \"%s\"?", nearest)});
  }
}

void GuardConfig::Describe(ConfigFields& f) {
  f.AddChoice("nan", nan, kGuardActionNames, {.doc = "where the loss or the gradient norm is not finite"});
  f.Add("spike_z", spike_z,
        {.doc = "a loss is a spike above mean + spike_z * standard deviation of the window; 0 = never",
         .min = 0,
         .max = 1000});
  f.AddChoice("spike", spike, kGuardActionNames, {.doc = "where the loss is a spike"});
  f.Add("window", window,
        {.doc = "losses that a spike is told by: the last applied ones since training began or was resumed",
         .unit = "steps",
         .min = 2,
         .max = 10000});
  f.Add("hang_timeout", hang_timeout,
        {.doc = "longest wait for a rank; longer than what one rank does alone in a step, save or load",
         .unit = "seconds",
         .min = 1,
         .max = 1e6});
}

void EvalConfig::Describe(ConfigFields& f) {
  f.Add("every", every,
        {.doc = "evaluate every so many; 0 = only at the end", .unit = "steps", .min = 0, .max = kMaxSteps});
  f.Add("batches", batches,
        {.doc = "global batches of an evaluation; 0 = all validation tokens", .min = 0, .max = 1e9});
}

std::vector<ConfigSection> DescribeJob(JobConfig& job) {
  return {
      {"run", "The run as a whole.", DescribeFields(job.run)},
      SectionOfKind("model", "What is trained.", job.model, &ModelConfig::arch, "arch", kModelArchNames),
      {"tokenizer", "Text to tokens.", DescribeFields(job.tokenizer)},
      {"data", "Token files, as `strata data build` writes them.", DescribeFields(job.data)},
      {"batch", "tokens = micro * accumulate * parallel.dp * model.seq: any two of the three give the third.",
       DescribeFields(job.batch)},
      SectionOfKind("optim", "The optimizer.", job.optim, &OptimConfig::type, "type", kOptimizerTypeNames),
      {"schedule", "The learning rate over the steps.", DescribeFields(job.schedule)},
      {"precision", "Number formats.", DescribeFields(job.precision)},
      {"parallel", "How many ranks, and what they share out. Ranks in all: dp * tp * pp.",
       DescribeFields(job.parallel)},
      {"memory", "The memory of a rank, as `strata plan` prints it, and what is given up for less of it.",
       DescribeFields(job.memory)},
      {"checkpoint", "Saving the state of training.", DescribeFields(job.checkpoint)},
      {"log", "Metrics and progress.", DescribeFields(job.log)},
      {"eval", "Loss on the validation tokens.", DescribeFields(job.eval)},
      {"guard",
       "A step whose loss is not finite, or jumps, changes nothing. Then training halts, or goes on with the next "
       "step; 10 "
       "such steps in a row halt it in any case. A rank that hangs ends the job.",
       DescribeFields(job.guard)},
  };
}

void CompleteJob(JobConfig& job, ConfigChecks& checks) {
  for (const ConfigSection& section : DescribeJob(job)) {
    for (const ConfigField& field : section.fields) CheckLimits(section.name, field, checks);
  }
  job.run.Check(checks);
  job.model.Check(checks);
  job.optim.Check(checks);
  job.schedule.Check(checks);
  job.log.Check(checks);
  job.data.Check(checks);
  job.memory.Check(checks);
  CheckTp(job, checks);
  CheckRecompute(job, checks);
  CheckRanks(job, checks);
  CheckZero(job, checks);
  CompleteBatch(job, checks);
  CheckPipeline(job, checks);
  CheckGradients(job, checks);
  CheckMaster(job, checks);
  CheckEval(job, checks);
  CheckPacking(job, checks);
  if (job.run.out.empty()) job.run.out = absl::StrCat("runs/", job.run.name);
}

}  // namespace strata
