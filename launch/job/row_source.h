#pragma once
// Where a job's sequences come from: a loader, a validation set, or a test's table.

#include <cstdint>
#include <span>

#include "absl/status/status.h"

namespace strata {

// One sequence, each span of the model's sequence length.
struct RowSpans {
  std::span<int32_t> tokens, targets;  // inputs, and what follows each
  std::span<float> weights;            // of the loss: 0 or 1
  std::span<int32_t>
      document_starts;  // index in the row at which each token's document begins; 0 if they are not kept apart
};

// A pure function of the index: any rank may ask for any row, in any order. Thread-safe.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // Writes every element. Errors: of reading, naming the file.
  virtual absl::Status Row(int64_t index, const RowSpans& row) const = 0;
};

}  // namespace strata
