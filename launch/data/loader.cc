#include "launch/data/loader.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "launch/data/permutation.h"

namespace strata {
namespace {

constexpr int64_t kScanTokens = 1 << 16;

absl::Status CheckVocabulary(const IndexedDataset& dataset, int64_t vocab_size) {
  std::vector<int32_t> block(kScanTokens);
  for (int64_t begin = 0; begin < dataset.num_tokens(); begin += kScanTokens) {
    const std::span tokens(block.data(), std::min(kScanTokens, dataset.num_tokens() - begin));
    dataset.Read(begin, tokens);
    const auto [low, high] = std::ranges::minmax(tokens);
    if (low < 0 || high >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s.bin: vocabulary mismatch: it holds token id %d, the model's vocabulary is %d",
                          dataset.prefix(), low < 0 ? low : high, vocab_size));
    }
  }
  return absl::OkStatus();
}

}  // namespace

Loader::Loader(IndexedDataset dataset, int64_t seq_len, uint64_t seed)
    : dataset_(std::move(dataset)), seq_len_(seq_len), seed_(seed) {}

absl::StatusOr<Loader> Loader::Create(Env& env, const std::string& prefix, int64_t seq_len, uint64_t seed,
                                      int64_t vocab_size) {
  STRATA_CHECK(seq_len > 0);
  ASSIGN_OR_RETURN(auto dataset, IndexedDataset::Open(env, prefix));
  if (dataset.num_tokens() < seq_len + 1) {
    return absl::InvalidArgumentError(absl::StrFormat("%s.bin: %d tokens, too few for one sample of %d and its targets",
                                                      prefix, dataset.num_tokens(), seq_len));
  }
  RETURN_IF_ERROR(CheckVocabulary(dataset, vocab_size));
  return Loader(std::move(dataset), seq_len, seed);
}

void Loader::Sample(int64_t global_index, std::span<int32_t> tokens, std::span<int32_t> targets) const {
  STRATA_CHECK(global_index >= 0 && std::ssize(tokens) == seq_len_ && std::ssize(targets) == seq_len_);
  const int64_t n = samples_per_epoch();
  const int64_t begin = Permute(seed_, global_index / n, n, global_index % n) * seq_len_;
  dataset_.Read(begin, tokens);
  dataset_.Read(begin + 1, targets);
}

void Loader::Window(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets,
                    std::span<float> weights) const {
  STRATA_CHECK(0 <= index && index < num_windows() && std::ssize(tokens) == seq_len_ &&
               std::ssize(targets) == seq_len_ && std::ssize(weights) == seq_len_);
  const int64_t begin = index * seq_len_;
  const int64_t real = std::min(seq_len_, dataset_.num_tokens() - 1 - begin);
  dataset_.Read(begin, tokens.first(real));
  dataset_.Read(begin + 1, targets.first(real));
  std::ranges::fill(tokens.subspan(real), 0);
  std::ranges::fill(targets.subspan(real), 0);
  std::ranges::fill(weights.first(real), 1.0f);
  std::ranges::fill(weights.subspan(real), 0.0f);
}

}  // namespace strata
