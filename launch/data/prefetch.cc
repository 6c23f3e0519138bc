#include "launch/data/prefetch.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace strata {

PrefetchRows::PrefetchRows(const RowSource& base, RowOrder order, int64_t steps, int64_t seq_len)
    : base_(base), order_(std::move(order)), seq_len_(seq_len), slots_(steps * std::ssize(order_.offsets)) {
  STRATA_CHECK(slots_ > 0);
  tokens_.resize(slots_ * seq_len);
  targets_.resize(slots_ * seq_len);
  weights_.resize(slots_ * seq_len);
  document_starts_.resize(slots_ * seq_len);
  statuses_.resize(slots_);
  thread_ = std::thread([this] { Work(); });
}

PrefetchRows::~PrefetchRows() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  room_.notify_one();
  thread_.join();
}

RowSpans PrefetchRows::Slot(int64_t i) const {
  const int64_t begin = i % slots_ * seq_len_;
  return {std::span(tokens_).subspan(begin, seq_len_), std::span(targets_).subspan(begin, seq_len_),
          std::span(weights_).subspan(begin, seq_len_), std::span(document_starts_).subspan(begin, seq_len_)};
}

void PrefetchRows::Work() {
  for (int64_t i = 0;; ++i) {
    {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [&] { return stop_ || i - taken_ < slots_; });
      if (stop_) return;
    }
    statuses_[i % slots_] = base_.Row(order_.At(i), Slot(i));
    {
      const std::lock_guard lock(mutex_);
      made_ = i + 1;
    }
    filled_.notify_all();
  }
}

absl::Status PrefetchRows::Row(int64_t index, const RowSpans& row) const {
  std::unique_lock lock(mutex_);
  if (index != order_.At(taken_)) {
    lock.unlock();
    return base_.Row(index, row);
  }
  const int64_t mine = taken_;
  filled_.wait(lock, [&] { return made_ > mine; });
  if (taken_ != mine) {  // another caller asked for the same row and was faster
    lock.unlock();
    return base_.Row(index, row);
  }
  const RowSpans slot = Slot(mine);
  std::ranges::copy(slot.tokens, row.tokens.begin());
  std::ranges::copy(slot.targets, row.targets.begin());
  std::ranges::copy(slot.weights, row.weights.begin());
  std::ranges::copy(slot.document_starts, row.document_starts.begin());
  absl::Status status = std::move(statuses_[mine % slots_]);
  ++taken_;
  lock.unlock();
  room_.notify_one();
  return status;
}

}  // namespace strata
