#include <algorithm>
#include <cmath>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/box.h"
#include "checkpoint/commit.h"
#include "checkpoint/writer.h"
#include "core/base/status.h"
#include "launch/config/print_config.h"
#include "launch/convert/checkpoint_weights.h"
#include "launch/convert/convert.h"
#include "models/hf/hf_model.h"
#include "models/hf/kept_files.h"

namespace strata {
namespace {

constexpr int64_t kShardBytes = int64_t{2} << 30;  // of a data file, and of memory
constexpr int64_t kMaxSeq = 2048;                  // of the config that is written: a longer one is the user's choice
constexpr int kKeep = 1;                           // checkpoints

// The widest type of all parameters: no number is changed.
DType DTypeOfAll(const HfModel& model) {
  DType widest = DType::kBF16;
  for (const Parameter& p : model.names().parameters()) {
    widest = std::min(widest, DTypeOf(model.TypeOf(p.name)).value_or(kDTypeOfF16));  // by DType: f64, f32, bf16
  }
  return widest;
}

JobConfig ConfigOf(const HfModel& model, DType dtype, const std::string& out, const std::vector<std::string>& texts) {
  JobConfig c;
  c.model = model.config();
  c.model.seq = std::min(c.model.seq, kMaxSeq);
  c.precision.compute = dtype;
  c.run.out = out;
  c.batch.micro = c.batch.accumulate = 1;
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    if (c.tokenizer.path.empty() && std::find(texts.begin(), texts.end(), name) != texts.end()) {
      c.tokenizer.path = absl::StrFormat("%s/%s/%s", out, kKeptFolder, name);
    }
  }
  ConfigChecks checks;
  CompleteJob(c, checks);
  return c;
}

// The sections that say something, with paths relative to the file's own folder.
std::string ModelToml(JobConfig c, const std::string& out) {
  std::string text =
      "# A model that strata convert made. To train on: add [data], and set batch, optim and schedule "
      "(docs/config.md).\n";
  c.run.out = std::string(".");
  c.tokenizer.path = std::filesystem::path(c.tokenizer.path).lexically_relative(out).string();
  c.batch.tokens = 0;
  for (const ConfigSection& section : DescribeJob(c)) {
    if (section.name != "run" && section.name != "model" && section.name != "tokenizer" && section.name != "batch" &&
        section.name != "precision") {
      continue;
    }
    text += absl::StrFormat("\n[%s]\n", section.name);
    for (const ConfigField& f : section.fields) {
      if (section.name == "run" && f.name != "out") continue;
      text += absl::StrFormat("%s = %s\n", f.name, TomlValue(f.value));
    }
  }
  return text;
}

absl::StatusOr<std::string> WriteCheckpoint(Env& env, const HfModel& model, const JobConfig& config) {
  const std::string root = config.run.out + "/checkpoints";
  ASSIGN_OR_RETURN(const std::string tmp, BeginSave(env, root, 0));
  const DType dtype = config.precision.compute;
  std::vector<ShardRecord> records;
  std::vector<std::vector<std::byte>> bytes;
  std::vector<SavedBox> boxes;
  int64_t held = 0;
  const auto flush = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(records.emplace_back(), WriteShard(env, tmp, static_cast<int>(records.size()), boxes));
    bytes.clear();
    boxes.clear();
    held = 0;
    return absl::OkStatus();
  };
  for (const Parameter& p : model.names().parameters()) {
    const Shape origin = OriginOf(p.shape);
    bytes.emplace_back(static_cast<size_t>(p.shape.elements() * SizeOf(dtype)));
    RETURN_IF_ERROR(model.Read(p.name, origin, p.shape, StoredTypeOf(dtype), bytes.back()));
    boxes.push_back({{p.name, dtype, p.shape, origin, p.shape}, bytes.back().data()});
    held += std::ssize(bytes.back());
    if (held >= kShardBytes) RETURN_IF_ERROR(flush());
  }
  if (!boxes.empty()) RETURN_IF_ERROR(flush());
  const CheckpointMeta meta{
      .mesh = "one rank", .seed = static_cast<uint64_t>(config.run.seed), .config = PrintConfig(config, {})};
  ASSIGN_OR_RETURN(const Committed done, CommitCheckpoint(env, root, 0, tmp, records, meta, kKeep));
  RETURN_IF_ERROR(done.cleanup);
  return done.path;
}

}  // namespace

absl::StatusOr<std::string> ImportHf(Env& env, const std::string& folder, const std::string& to, Verification verify) {
  ASSIGN_OR_RETURN(const HfModel model, HfModel::Open(env, folder));
  const std::string out = std::filesystem::absolute(to).lexically_normal().string();
  RETURN_IF_ERROR(MakeEmptyFolder(env, out));
  const std::string kept = out + "/" + kKeptFolder;
  RETURN_IF_ERROR(KeepHfFiles(env, folder, model, kept));
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, TextsOf(env, kept));
  const DType dtype = DTypeOfAll(model);
  const JobConfig config = ConfigOf(model, dtype, out, texts);
  ASSIGN_OR_RETURN(const std::string path, WriteCheckpoint(env, model, config));
  RETURN_IF_ERROR(WriteTextAtomically(env, out + "/model.toml", ModelToml(config, out)));
  std::string report =
      absl::StrFormat("%s, %d parameters in %s: %s\ncarried along: %s\nconfig %s/model.toml\n",
                      kModelArchNames[static_cast<size_t>(config.model.arch)], config.model.num_parameters(),
                      Name(dtype), path, absl::StrJoin(texts, ", "), out);
  if (!model.unused().empty()) {
    report += absl::StrFormat("kept for the way back, not used: %d tensors\n", model.unused().size());
  }
  if (verify == Verification::kNo) return report;
  ASSIGN_OR_RETURN(const std::string verified, VerifyConversion(env, folder, path));
  return report + verified;
}

}  // namespace strata
