#include "launch/data/baselines.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/check.h"

namespace strata {
namespace {

struct Bigram {
  uint64_t key;  // previous token << 32 | token
  int64_t count;
};

uint64_t Key(int32_t previous, int32_t token) {
  return uint64_t{static_cast<uint32_t>(previous)} << 32 | static_cast<uint32_t>(token);
}

std::vector<Bigram> CountBigrams(std::span<const int32_t> stream) {
  std::vector<uint64_t> keys;
  for (size_t i = 1; i < stream.size(); ++i) keys.push_back(Key(stream[i - 1], stream[i]));
  std::ranges::sort(keys);
  std::vector<Bigram> bigrams;
  for (const uint64_t key : keys) {
    if (bigrams.empty() || bigrams.back().key != key) bigrams.push_back({key, 0});
    ++bigrams.back().count;
  }
  return bigrams;
}

class KneserNey {
 public:
  KneserNey(std::span<const int32_t> train, int64_t vocab_size)
      : bigrams_(CountBigrams(train)), followed_(vocab_size), after_(vocab_size), before_(vocab_size) {
    double once = 0, twice = 0;
    for (const auto& [key, count] : bigrams_) {
      followed_[key >> 32] += static_cast<double>(count);
      ++after_[key >> 32];
      ++before_[static_cast<uint32_t>(key)];
      once += count == 1;
      twice += count == 2;
    }
    discount_ = once > 0 ? once / (once + 2 * twice) : 0.5;
  }

  double Probability(int32_t previous, int32_t token) const {
    const double lower =
        (before_[token] + 1) / (static_cast<double>(bigrams_.size()) + static_cast<double>(before_.size()));
    const double total = followed_[previous];
    if (total == 0) return lower;
    const uint64_t key = Key(previous, token);
    const auto found = std::ranges::lower_bound(bigrams_, key, {}, &Bigram::key);
    const double count = found != bigrams_.end() && found->key == key ? static_cast<double>(found->count) : 0;
    return (std::max(count - discount_, 0.0) + discount_ * after_[previous] * lower) / total;
  }

 private:
  std::vector<Bigram> bigrams_;   // sorted by key
  std::vector<double> followed_;  // c(v .)
  std::vector<double> after_;     // T(v)
  std::vector<double> before_;    // P(w)
  double discount_ = 0;
};

}  // namespace

Baselines CountBaselines(std::span<const int32_t> train, std::span<const int32_t> valid, int64_t vocab_size) {
  STRATA_CHECK(vocab_size > 0 && valid.size() >= 2);
  std::vector<double> counts(vocab_size);
  for (const int32_t token : train) ++counts[token];
  const KneserNey bigram(train, vocab_size);

  Baselines nats{.uniform = std::log(static_cast<double>(vocab_size))};
  const double total = static_cast<double>(train.size()) + static_cast<double>(vocab_size);
  for (size_t i = 1; i < valid.size(); ++i) {
    nats.unigram -= std::log((counts[valid[i]] + 1) / total);
    nats.bigram -= std::log(bigram.Probability(valid[i - 1], valid[i]));
  }
  const auto targets = static_cast<double>(valid.size() - 1);
  nats.unigram /= targets;
  nats.bigram /= targets;
  return nats;
}

}  // namespace strata
