#pragma once
// Which of several launches is fastest on a chip as hot as in training. CUDA sources only.

#include <algorithm>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"

namespace strata {

// The mean seconds of each of `launches`, which take turns, so that a drifting clock treats all alike, and for so long that the chip is
// as hot and as slow as in training. Blocks.
inline absl::StatusOr<std::vector<double>> InTurn(cudaStream_t stream,
                                                  const std::vector<std::function<absl::Status()>>& launches) {
  constexpr int kRounds = 2;
  constexpr double kRoundSeconds = 0.015;
  std::vector<double> seconds(launches.size());
  int runs = 2;
  for (int round = 0; round <= kRounds; ++round) {
    for (size_t i = 0; i < launches.size(); ++i) {
      ASSIGN_OR_RETURN(const double t, SecondsOnStream(stream, runs, launches[i]));
      seconds[i] = round == 0 ? 0 : seconds[i] + t / kRounds;
      if (round == 0) runs = static_cast<int>(std::clamp(kRoundSeconds / t, 1.0, 200.0));
    }
  }
  return seconds;
}

}  // namespace strata
