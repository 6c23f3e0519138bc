#include "launch/config/load_config.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_format.h"
#include "launch/config/toml_reader.h"

namespace strata {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;

// Paths that the command line gives are relative to the current folder, all others to the file's.
void ResolvePaths(const std::string& file, const Provenance& provenance, JobConfig& job) {
  std::error_code error;  // without a current folder, paths stay as they are
  const std::filesystem::path absolute = std::filesystem::absolute(file, error);
  const std::filesystem::path folder = (error ? std::filesystem::path(file) : absolute).parent_path();
  const std::filesystem::path current = std::filesystem::current_path(error);
  for (const ConfigSection& section : DescribeJob(job)) {
    for (const ConfigField& field : section.fields) {
      if (!field.info.is_path) continue;
      const bool set = provenance.set.contains(absl::StrFormat("%s.%s", section.name, field.name));
      const auto resolve = [&](std::string& path) {
        if (!path.empty()) path = ((set ? current : folder) / path).lexically_normal().string();
      };
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

// A job with nothing but the choices on which it depends what other keys there are.
LoadedJob ReadKinds(std::string_view text, const Overrides& overrides) {
  LoadedJob all, kinds;
  ConfigChecks found_again;
  ReadFileAndOverrides(text, overrides, all, found_again);
  kinds.config.model.arch = all.config.model.arch;
  kinds.config.optim.type = all.config.optim.type;
  return kinds;
}

// Reads and completes; mistakes go to `checks`.
LoadedJob Read(std::string_view text, const std::string& path, const Overrides& overrides, ConfigChecks& checks) {
  LoadedJob job = ReadKinds(text, overrides);
  job.provenance.file = path;
  ReadFileAndOverrides(text, overrides, job, checks);
  NoteDerived(job.config.batch, job.provenance);
  const bool readable = checks.Ok({""});  // a syntax error leaves nothing to check
  if (readable) CompleteJob(job.config, checks);
  ResolvePaths(path, job.provenance, job.config);
  return job;
}

}  // namespace

std::string TrainSourceKey(const Provenance& provenance, size_t i) {
  const std::string item = absl::StrFormat("data.train[%d]", i);
  return provenance.at.contains(item) ? item : "data.train";
}

absl::StatusOr<LoadedJob> ParseJobConfig(std::string_view text, const std::string& path, const Overrides& overrides) {
  ConfigChecks checks;
  LoadedJob job = Read(text, path, overrides, checks);
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
  LoadedJob job = Read(*text, path, overrides, checks);
  if (checks.Ok({""})) CheckFiles(env, job, needs, checks);
  if (!checks.issues().empty()) return ConfigError(job.provenance, checks.issues());
  return job;
}

}  // namespace strata
