#include "launch/config/load_config.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/strings/str_format.h"
#include "launch/config/pipeline.h"
#include "launch/config/print_config.h"
#include "launch/config/toml_reader.h"
#include "models/hf/config_json.h"

namespace strata {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;

constexpr char kFrom[] = "model.from";

// Paths that the command line gives are relative to the current folder, all others to the file's.
class PathResolver {
 public:
  PathResolver(const std::string& file, const Provenance& provenance) : provenance_(provenance) {
    std::error_code error;  // without a current folder, paths stay as they are
    const std::filesystem::path absolute = std::filesystem::absolute(file, error);
    folder_ = (error ? std::filesystem::path(file) : absolute).parent_path();
    current_ = std::filesystem::current_path(error);
  }
  void Resolve(const std::string& key, std::string& path) const {
    if (path.empty()) return;
    path = ((provenance_.set.contains(key) ? current_ : folder_) / path).lexically_normal().string();
    if (path.size() > 1 && path.back() == '/') path.pop_back();  // of "."
  }

 private:
  const Provenance& provenance_;
  std::filesystem::path folder_, current_;
};

void ResolvePaths(const std::string& file, const Provenance& provenance, JobConfig& job) {
  const PathResolver resolver(file, provenance);
  if (std::string folder = HfFolderOf(job.model.from); !folder.empty()) {
    resolver.Resolve(kFrom, folder);
    job.model.from = kHfScheme + folder;
  }
  for (const ConfigSection& section : DescribeJob(job)) {
    for (const ConfigField& field : section.fields) {
      if (!field.info.is_path) continue;
      const std::string key = absl::StrFormat("%s.%s", section.name, field.name);
      const auto resolve = [&](std::string& path) { resolver.Resolve(key, path); };
      if (auto* list = std::get_if<std::vector<WeightedPath>*>(&field.value)) {
        for (WeightedPath& item : **list) resolve(item.path);
      } else {
        resolve(*std::get<std::string*>(field.value));
      }
    }
  }
}

// What CompleteBatch is going to compute.
void NoteDerived(const BatchConfig& batch, Provenance& provenance) {
  if (batch.tokens == 0) provenance.derived["batch.tokens"] = "from batch.micro and batch.accumulate";
  if (batch.micro == 0) provenance.derived["batch.micro"] = "from batch.tokens and batch.accumulate";
  if (batch.accumulate == 0) provenance.derived["batch.accumulate"] = "from batch.tokens and batch.micro";
}

void CheckExists(Env& env, std::string_view key, const std::string& path, ConfigChecks& checks) {
  if (env.Exists(path) || !checks.Ok({key})) return;
  checks.Add({ConfigErrorKind::kNoSuchFile, std::string(key), absl::StrFormat("%s: %s does not exist", key, path)});
}

void CheckTokenFiles(Env& env, std::string_view key, const std::string& prefix, ConfigChecks& checks) {
  CheckExists(env, key, prefix + ".idx", checks);
  CheckExists(env, key, prefix + ".bin", checks);
}

void CheckSet(std::string_view key, bool is_set, ConfigChecks& checks) {
  if (is_set || !checks.Ok({key})) return;
  checks.Add({ConfigErrorKind::kMissing, std::string(key), absl::StrFormat("%s is needed by this command", key)});
}

void CheckFiles(Env& env, const LoadedJob& loaded, ConfigNeeds needs, ConfigChecks& checks) {
  const JobConfig& job = loaded.config;
  if (needs.tokenizer) CheckSet("tokenizer.path", !job.tokenizer.path.empty(), checks);
  if (needs.data) CheckSet("data.train", !job.data.train.empty(), checks);
  if (needs.valid) CheckSet("data.valid", !job.data.valid.empty(), checks);
  if ((needs.tokenizer || needs.data) && !job.tokenizer.path.empty()) {
    CheckExists(env, "tokenizer.path", job.tokenizer.path, checks);
  }
  for (size_t i = 0; needs.data && i < job.data.train.size(); ++i) {
    CheckTokenFiles(env, TrainSourceKey(loaded.provenance, i), job.data.train[i].path, checks);
  }
  if ((needs.data || needs.valid) && !job.data.valid.empty()) {
    CheckTokenFiles(env, "data.valid", job.data.valid, checks);
  }
}

void ReadFileAndOverrides(std::string_view text, const Overrides& overrides, LoadedJob& job, ConfigChecks& checks) {
  ReadToml(text, DescribeJob(job.config), job.provenance, checks);
  for (const std::string& argument : overrides) {
    ReadOverride(argument, DescribeJob(job.config), job.provenance, checks);
  }
}

// A job with nothing but the choices on which it depends what other keys there are, and the model that it begins from.
LoadedJob ReadKinds(std::string_view text, const Overrides& overrides, const std::optional<ModelConfig>& from) {
  LoadedJob all, kinds;
  ConfigChecks found_again;
  ReadFileAndOverrides(text, overrides, all, found_again);
  if (from) {
    kinds.config.model = *from;
  } else {
    kinds.config.model.arch = all.config.model.arch;
  }
  kinds.config.optim.type = all.config.optim.type;
  return kinds;
}

// What a job may choose for itself, whatever model it begins from.
constexpr std::string_view kChosenKeys[] = {"from", "seq", "dropout", "init_std", "mask_token"};

// A key that says otherwise than the model that the job begins from is a mistake; the others are the model's.
void CheckAgainst(const ModelConfig& from, const std::string& path, LoadedJob& job, ConfigChecks& checks) {
  Provenance& p = job.provenance;
  const auto is_said = [&](const std::string& key) { return p.at.contains(key) || p.set.contains(key); };
  std::string source = absl::StrFormat("%s/%s", HfFolderOf(job.config.model.from), kHfConfigName);
  PathResolver(path, p).Resolve(kFrom, source);
  ModelConfig theirs = from, mine = job.config.model;
  const bool other_arch = mine.arch != theirs.arch;
  job.config.model.arch = theirs.arch;
  const std::vector<ConfigField> expected = DescribeFields(theirs);
  for (const ConfigField& field : DescribeFields(mine)) {
    const std::string key = "model." + field.name;
    const auto same = [&](const ConfigField& f) { return f.name == field.name; };
    const auto known = std::find_if(expected.begin(), expected.end(), same);
    if (known == expected.end() || (other_arch && field.name != "arch")) continue;
    const std::string value = TomlValue(field.value), want = TomlValue(known->value);
    const bool chosen = std::find(std::begin(kChosenKeys), std::end(kChosenKeys), field.name) != std::end(kChosenKeys);
    if (!is_said(key)) {
      if (!chosen || field.name == "seq") p.derived[key] = "from " + source;
    } else if (!chosen && value != want && checks.Ok({key})) {
      checks.Add(ConfigErrorKind::kContradiction, key, value, absl::StrFormat("%s says otherwise", source), want);
    }
  }
}

// Reads and completes; mistakes go to `checks`.
LoadedJob Read(std::string_view text, const std::string& path, const Overrides& overrides,
               const std::optional<ModelConfig>& from, ConfigChecks& checks) {
  LoadedJob job = ReadKinds(text, overrides, from);
  job.provenance.file = path;
  ReadFileAndOverrides(text, overrides, job, checks);
  if (from && checks.Ok({""})) CheckAgainst(*from, path, job, checks);
  NoteDerived(job.config.batch, job.provenance);
  const bool readable = checks.Ok({""});  // a syntax error leaves nothing to check
  if (readable) CompleteJob(job.config, checks);
  ResolvePaths(path, job.provenance, job.config);
  return job;
}

// The model that model.from names, where it names one; none where it cannot be read, which is a mistake.
std::optional<ModelConfig> ReadFrom(Env& env, std::string_view text, const std::string& path,
                                    const Overrides& overrides, ConfigChecks& checks) {
  LoadedJob job;
  ConfigChecks found_again;
  ReadFileAndOverrides(text, overrides, job, found_again);
  std::string folder = HfFolderOf(job.config.model.from);
  if (folder.empty()) return std::nullopt;
  PathResolver(path, job.provenance).Resolve(kFrom, folder);
  const std::string file = folder + "/" + kHfConfigName;
  const absl::StatusOr<std::string> json = ReadText(env, file, kMaxHfConfig);
  if (!json.ok()) {
    checks.Add(
        {ConfigErrorKind::kNoSuchFile, kFrom, absl::StrFormat("%s: %s", kFrom, std::string(json.status().message()))});
    return std::nullopt;
  }
  absl::StatusOr<HfConfig> hf = ParseHfConfig(*json);
  if (!hf.ok()) {
    checks.Add({ConfigErrorKind::kMismatch, kFrom,
                absl::StrFormat("%s: %s: %s", kFrom, file, std::string(hf.status().message()))});
    return std::nullopt;
  }
  return std::move(hf->model);
}

}  // namespace

std::string TrainSourceKey(const Provenance& provenance, size_t i) {
  const std::string item = absl::StrFormat("data.train[%d]", i);
  return provenance.at.contains(item) ? item : "data.train";
}

absl::StatusOr<LoadedJob> ParseJobConfig(std::string_view text, const std::string& path, const Overrides& overrides) {
  ConfigChecks checks;
  LoadedJob job = Read(text, path, overrides, std::nullopt, checks);
  if (!checks.issues().empty()) return ConfigError(job.provenance, checks.issues());
  return job;
}

absl::StatusOr<LoadedJob> LoadJobConfig(Env& env, const std::string& path, ConfigNeeds needs,
                                        const Overrides& overrides) {
  ConfigChecks checks;
  const absl::StatusOr<std::string> text = ReadText(env, path, kMaxConfigBytes);
  if (!text.ok()) {
    checks.Add({ConfigErrorKind::kUnreadable, "",
                absl::StrFormat("cannot read the config file: %s", std::string(text.status().message()))});
    return ConfigError({.file = path}, checks.issues());
  }
  const std::optional<ModelConfig> from = ReadFrom(env, *text, path, overrides, checks);
  LoadedJob job = Read(*text, path, overrides, from, checks);
  if (checks.Ok({""})) CheckFiles(env, job, needs, checks);
  if (checks.issues().empty()) CheckScheduleFile(env, job.config, checks);
  if (!checks.issues().empty()) return ConfigError(job.provenance, checks.issues());
  return job;
}

}  // namespace strata
