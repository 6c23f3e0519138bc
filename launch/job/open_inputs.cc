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
    // A model from elsewhere may have rows beyond its tokenizer's pieces, which no text becomes: its maker padded the table.
    const bool foreign = t->file_name() == kJsonFile || !config_.model.from.empty();
    const bool padded = foreign && t->vocab_size() < config_.model.vocab;
    if (t->vocab_size() != config_.model.vocab && !padded) {
      issues_.push_back({ConfigErrorKind::kMismatch, "model.vocab",
                         absl::StrFormat("model.vocab = %d: the tokenizer %s has %d pieces", config_.model.vocab,
                                         config_.tokenizer.path, t->vocab_size()),
                         absl::StrFormat("set vocab = %d", t->vocab_size())});
    }
    first_ = Made{config_.tokenizer.path, t->vocab_size(), t->crc32c()};
    tokenizer = *std::move(t);
  }

  void OpenLoader(const std::string& key, const std::string& prefix, std::optional<Loader>& loader, size_t source = 0) {
    const uint64_t seed = SourceSeed(static_cast<uint64_t>(config_.run.seed), source);
    absl::StatusOr<Loader> l =
        Loader::Create(env_, prefix, config_.model.seq, seed, config_.model.vocab, config_.data.packing);
    if (!l.ok()) return Mismatch(key, l.status());
    loader.emplace(*std::move(l));
    CheckTokenizer(key, loader->dataset());
  }

  void OpenTraining(std::optional<TrainingData>& train) {
    if (config_.data.train.empty()) return Mismatch("data.train", absl::InvalidArgumentError("not set"));
    std::vector<Loader> sources;
    std::vector<double> weights;
    for (size_t i = 0; i < config_.data.train.size(); ++i) {
      std::optional<Loader> loader;
      OpenLoader(TrainSourceKey(job_.provenance, i), config_.data.train[i].path, loader, i);
      if (loader) sources.push_back(*std::move(loader));
      weights.push_back(config_.data.train[i].weight);
    }
    if (sources.size() == weights.size()) train.emplace(TrainingData{std::move(sources), Mixture(weights)});
  }

  absl::Status Finish() const { return ConfigError(job_.provenance, issues_); }

 private:
  void Mismatch(const std::string& key, const absl::Status& why) {
    issues_.push_back({ConfigErrorKind::kMismatch, key, absl::StrFormat("%s: %s", key, std::string(why.message()))});
  }

  // Ids of different tokenizers mean different things: all token files must be of one, the job's where it names one.
  void CheckTokenizer(const std::string& key, const IndexedDataset& dataset) {
    if (!dataset.sums()) return;
    const Made made{dataset.prefix(), dataset.sums()->vocab, dataset.sums()->tokenizer};
    if (!first_) first_ = made;
    const bool known = made.tokenizer != 0 && first_->tokenizer != 0;
    if (made.vocab == first_->vocab && (!known || made.tokenizer == first_->tokenizer)) return;
    Mismatch(key, absl::InvalidArgumentError(absl::StrFormat(
                      "%s was made with another tokenizer (%d pieces, checksum %08x) than that of %s (%d pieces, %08x)",
                      made.path, made.vocab, made.tokenizer, first_->path, first_->vocab, first_->tokenizer)));
  }

  struct Made {
    std::string path;  // the token files, or the tokenizer itself
    int64_t vocab;
    uint32_t tokenizer;
  };

  Env& env_;
  const LoadedJob& job_;
  const JobConfig& config_;
  std::vector<ConfigIssue> issues_;
  std::optional<Made> first_;
};

}  // namespace

absl::StatusOr<JobInputs> OpenInputs(Env& env, const LoadedJob& job, ConfigNeeds needs) {
  JobInputs inputs;
  Opener opener(env, job);
  if (!job.config.tokenizer.path.empty()) opener.OpenTokenizer(inputs.tokenizer);
  if (needs.data) {
    opener.OpenTraining(inputs.train);
    if (!job.config.data.valid.empty()) opener.OpenLoader("data.valid", job.config.data.valid, inputs.valid);
  }
  if (const absl::Status s = opener.Finish(); !s.ok()) return s;
  return inputs;
}

}  // namespace strata
