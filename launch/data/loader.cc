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
    RETURN_IF_ERROR(dataset.Read(begin, tokens));
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

Loader::Loader(IndexedDataset dataset, int64_t seq_len, uint64_t seed, Packing packing)
    : dataset_(std::move(dataset)), seq_len_(seq_len), seed_(seed), packing_(packing) {}

absl::StatusOr<Loader> Loader::Create(Env& env, const std::string& prefix, int64_t seq_len, uint64_t seed,
                                      int64_t vocab_size, Packing packing) {
  STRATA_CHECK(seq_len > 0);
  ASSIGN_OR_RETURN(auto dataset, IndexedDataset::Open(env, prefix));
  if (dataset.num_tokens() < seq_len + 1) {
    return absl::InvalidArgumentError(absl::StrFormat("%s.bin: %d tokens, too few for one sample of %d and its targets",
                                                      prefix, dataset.num_tokens(), seq_len));
  }
  RETURN_IF_ERROR(CheckVocabulary(dataset, vocab_size));
  return Loader(std::move(dataset), seq_len, seed, packing);
}

absl::Status Loader::Sample(int64_t global_index, const RowSpans& row) const {
  STRATA_CHECK(global_index >= 0);
  const int64_t n = samples_per_epoch();
  return Window(Permute(seed_, global_index / n, n, global_index % n), row);
}

absl::Status Loader::Window(int64_t index, const RowSpans& row) const {
  STRATA_CHECK(0 <= index && index < num_windows() && std::ssize(row.tokens) == seq_len_ &&
               std::ssize(row.targets) == seq_len_ && std::ssize(row.weights) == seq_len_ &&
               std::ssize(row.document_starts) == seq_len_);
  const int64_t begin = index * seq_len_;
  const int64_t real = std::min(seq_len_, dataset_.num_tokens() - 1 - begin);
  RETURN_IF_ERROR(dataset_.Read(begin, row.tokens.first(real)));
  RETURN_IF_ERROR(dataset_.Read(begin + 1, row.targets.first(real)));
  std::ranges::fill(row.tokens.subspan(real), 0);
  std::ranges::fill(row.targets.subspan(real), 0);
  std::ranges::fill(row.weights.first(real), 1.0f);
  std::ranges::fill(row.weights.subspan(real), 0.0f);
  std::ranges::fill(row.document_starts, 0);
  if (packing_ == Packing::kIsolate) Isolate(begin, real, row);
  return absl::OkStatus();
}

// Marks the documents of tokens [begin, begin + real).
void Loader::Isolate(int64_t begin, int64_t real, const RowSpans& row) const {
  const int64_t end = begin + real;
  int64_t first = begin;
  for (int64_t d = dataset_.DocumentOf(begin); first < end; ++d) {
    const int64_t next = dataset_.DocumentBegin(d + 1), stop = std::min(next, end);
    std::ranges::fill(row.document_starts.subspan(first - begin, stop - first), static_cast<int32_t>(first - begin));
    if (first < next && next <= end) row.weights[next - 1 - begin] = 0;
    first = stop;
  }
  std::ranges::fill(row.document_starts.subspan(real), static_cast<int32_t>(real));
}

}  // namespace strata
