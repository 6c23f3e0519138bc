#include "launch/job/open_inputs.h"

#include "absl/strings/str_format.h"

namespace strata {
namespace {

class Opener {
 public:
  Opener(Env& env, const LoadedJob& job) : env_(env), job_(job), config_(job.config) {}

  void OpenTokenizer(std::optional<Tokenizer>& tokenizer) {
    absl::StatusOr<Tokenizer> t = Tokenizer::Load(env_, config_.tokenizer.path);
    if (!t.ok()) return Mismatch("tokenizer.path", t.status());
    if (t->vocab_size() != config_.model.vocab) {
      issues_.push_back({ConfigErrorKind::kMismatch, "model.vocab",
                         absl::StrFormat("model.vocab = %d: the tokenizer %s has %d pieces", config_.model.vocab,
                                         config_.tokenizer.path, t->vocab_size()),
                         absl::StrFormat("set vocab = %d", t->vocab_size())});
    }
    tokenizer = *std::move(t);
  }

  void OpenLoader(const char* key, const std::string& prefix, std::optional<Loader>& loader) {
    absl::StatusOr<Loader> l = Loader::Create(env_, prefix, config_.model.seq, static_cast<uint64_t>(config_.run.seed),
                                              config_.model.vocab, config_.data.packing);
    if (!l.ok()) return Mismatch(key, l.status());
    loader.emplace(*std::move(l));
  }

  absl::Status Finish() const { return ConfigError(job_.provenance, issues_); }

 private:
  void Mismatch(const char* key, const absl::Status& why) {
    issues_.push_back({ConfigErrorKind::kMismatch, key, absl::StrFormat("%s: %s", key, std::string(why.message()))});
  }

  Env& env_;
  const LoadedJob& job_;
  const JobConfig& config_;
  std::vector<ConfigIssue> issues_;
};

}  // namespace

absl::StatusOr<JobInputs> OpenInputs(Env& env, const LoadedJob& job, ConfigNeeds needs) {
  JobInputs inputs;
  Opener opener(env, job);
  if (!job.config.tokenizer.path.empty()) opener.OpenTokenizer(inputs.tokenizer);
  if (needs.data) {
    opener.OpenLoader("data.train", job.config.data.train, inputs.train);
    if (!job.config.data.valid.empty()) opener.OpenLoader("data.valid", job.config.data.valid, inputs.valid);
  }
  if (const absl::Status s = opener.Finish(); !s.ok()) return s;
  return inputs;
}

}  // namespace strata
