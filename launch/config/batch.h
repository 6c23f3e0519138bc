#pragma once
// Batch arithmetic: tokens = micro * accumulate * parallel.dp * model.seq.

#include <cstdint>

#include "core/base/config.h"

namespace strata {

struct JobConfig;

inline constexpr int64_t kMaxBatchTokens = int64_t{1} << 32;

// Computes the one of batch.tokens, micro and accumulate that is 0 from the other two, or checks that all three agree.
void CompleteBatch(JobConfig& job, ConfigChecks& checks);

}  // namespace strata
