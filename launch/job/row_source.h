#pragma once
// Where a job's sequences come from: a loader, a validation set, or a test's table.

#include <cstdint>
#include <span>

namespace strata {

// A pure function of the index: any rank may ask for any row, in any order. Thread-safe.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // One sequence: inputs, next-token targets and loss weights (0 or 1), each of the model's sequence length.
  virtual void Row(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets,
                   std::span<float> weights) const = 0;
};

}  // namespace strata
