#include "launch/config/load_config.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_format.h"
#include "launch/config/toml_reader.h"

namespace strata {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;

void ResolvePaths(const std::filesystem::path& folder, JobConfig& job) {
  for (const ConfigSection& section : DescribeJob(job)) {
    for (const ConfigField& field : section.fields) {
      if (!field.info.is_path) continue;
      std::string& path = *std::get<std::string*>(field.value);
      if (!path.empty()) path = (folder / path).lexically_normal().string();
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

void CheckSet(std::string_view key, const std::string& value, ConfigChecks& checks) {
  if (!value.empty() || !checks.Ok({key})) return;
  checks.Add({ConfigErrorKind::kMissing, std::string(key), absl::StrFormat("%s is needed by this command", key)});
}

void CheckFiles(Env& env, const JobConfig& job, ConfigNeeds needs, ConfigChecks& checks) {
  if (needs.tokenizer) CheckSet("tokenizer.path", job.tokenizer.path, checks);
  if (needs.data) CheckSet("data.train", job.data.train, checks);
  if ((needs.tokenizer || needs.data) && !job.tokenizer.path.empty()) {
    CheckExists(env, "tokenizer.path", job.tokenizer.path, checks);
  }
  if (!needs.data) return;
  for (const auto& [key, prefix] : {std::pair{"data.train", job.data.train}, std::pair{"data.valid", job.data.valid}}) {
    if (prefix.empty()) continue;
    CheckExists(env, key, prefix + ".idx", checks);
    CheckExists(env, key, prefix + ".bin", checks);
  }
}

// Which keys there are depends on these, so they are read first.
void ReadKinds(std::string_view text, JobConfig& job) {
  JobConfig first;
  Provenance provenance;
  ConfigChecks found_again;
  ReadToml(text, DescribeJob(first), provenance, found_again);
  job.model.arch = first.model.arch;
}

// Reads and completes; mistakes go to `checks`.
LoadedJob Read(std::string_view text, const std::string& path, ConfigChecks& checks) {
  LoadedJob job;
  job.provenance.file = path;
  ReadKinds(text, job.config);
  ReadToml(text, DescribeJob(job.config), job.provenance, checks);
  NoteDerived(job.config.batch, job.provenance);
  const bool readable = checks.Ok({""});  // a syntax error leaves nothing to check
  if (readable) CompleteJob(job.config, checks);
  std::error_code error;  // without a current folder, paths stay as they are
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  ResolvePaths((error ? std::filesystem::path(path) : absolute).parent_path(), job.config);
  return job;
}

}  // namespace

absl::StatusOr<LoadedJob> ParseJobConfig(std::string_view text, const std::string& path) {
  ConfigChecks checks;
  LoadedJob job = Read(text, path, checks);
  if (!checks.issues().empty()) return ConfigError(job.provenance, checks.issues());
  return job;
}

absl::StatusOr<LoadedJob> LoadJobConfig(Env& env, const std::string& path, ConfigNeeds needs) {
  ConfigChecks checks;
  const absl::StatusOr<std::string> text = ReadText(env, path, kMaxConfigBytes);
  if (!text.ok()) {
    checks.Add({ConfigErrorKind::kUnreadable, "",
                absl::StrFormat("cannot read the config file: %s", std::string(text.status().message()))});
    return ConfigError({.file = path}, checks.issues());
  }
  LoadedJob job = Read(*text, path, checks);
  if (checks.Ok({""})) CheckFiles(env, job.config, needs, checks);
  if (!checks.issues().empty()) return ConfigError(job.provenance, checks.issues());
  return job;
}

}  // namespace strata
