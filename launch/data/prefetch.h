#pragma once
// Rows prepared ahead on a thread of their own, so that a step does not wait for its data. A ring of the rows that the next
// steps of one rank will ask for; all memory is there from the start.

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "launch/job/row_source.h"

namespace strata {

// The order in which a rank asks: for each step, first + offsets[0], first + offsets[1], ..., and then first moves on.
struct RowOrder {
  int64_t first = 0;  // row of the first step
  int64_t rows_per_step = 1;
  std::vector<int64_t> offsets;  // of this rank; not empty
  int64_t At(int64_t i) const {  // the i-th row of the run
    const auto n = static_cast<int64_t>(offsets.size());
    return first + i / n * rows_per_step + offsets[i % n];
  }
};

// The rows of `base`, which must outlive it. Row() waits for the row that is next in the order; any other one it reads from
// `base` itself. An error of `base` comes from the Row() that it belongs to. Thread-safe; its end waits for one row at most.
class PrefetchRows final : public RowSource {
 public:
  // Holds `steps` >= 1 steps of rows of `seq_len`.
  PrefetchRows(const RowSource& base, RowOrder order, int64_t steps, int64_t seq_len);
  ~PrefetchRows() override;
  PrefetchRows(const PrefetchRows&) = delete;
  PrefetchRows& operator=(const PrefetchRows&) = delete;

  absl::Status Row(int64_t index, const RowSpans& row) const override;

 private:
  void Work();
  RowSpans Slot(int64_t i) const;

  const RowSource& base_;
  const RowOrder order_;
  const int64_t seq_len_, slots_;
  // [slots_, seq_len_]; slots [taken_, made_) are ready, the next one is the thread's.
  mutable std::vector<int32_t> tokens_, targets_, document_starts_;
  mutable std::vector<float> weights_;
  mutable std::vector<absl::Status> statuses_;  // [slots_]; a ready one is handed over: threads never share a message
  mutable std::mutex mutex_;
  mutable std::condition_variable filled_, room_;
  mutable int64_t taken_ = 0;  // rows, guarded by mutex_, as are the two below
  int64_t made_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace strata
