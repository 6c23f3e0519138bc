#pragma once
// Which of several launches is fastest on a chip as hot as in training. CUDA sources only.

#include <algorithm>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"

namespace strata {

using Launches = std::vector<std::function<absl::Status()>>;

// The mean seconds of each of `launches`, which take turns, so that a drifting clock treats all alike: in effect, their
// cycles. Blocks.
inline absl::StatusOr<std::vector<double>> InTurn(cudaStream_t stream, const Launches& launches) {
  constexpr double kTurn = 0.015;  // seconds
  std::vector<double> seconds(launches.size());
  int runs = 2;
  for (const bool heats : {true, false}) {
    for (size_t i = 0; i < launches.size(); ++i) {
      ASSIGN_OR_RETURN(seconds[i], SecondsOnStream(stream, runs, launches[i]));
      if (heats) runs = static_cast<int>(std::clamp(kTurn / seconds[i], 1.0, 200.0));
    }
  }
  return seconds;
}

// The mean seconds of each of `launches` alone, for longer than the window over which the chip holds its power to the limit:
// each at the clock that its own power allows, so that energy counts and not cycles only. A chip at its limit P has a clock f
// where P = E f / n, of the n cycles of the work and their energy E, which grows with the voltage, about as f^2: so the time n / f goes as n^(2/3) E^(1/3), for
// a launch alone as for the whole step that it is a part of. Launches that are over in no time are timed for less. Blocks.
inline absl::StatusOr<std::vector<double>> Alone(cudaStream_t stream, const Launches& launches) {
  constexpr double kSettle = 0.1, kTimed = 0.1;  // seconds
  constexpr double kMostRuns = 2000;
  std::vector<double> seconds;
  for (const auto& launch : launches) {
    RETURN_IF_ERROR(launch());  // loads its code
    ASSIGN_OR_RETURN(const double once, SecondsOnStream(stream, 2, launch));
    const auto runs = [&](double t) { return static_cast<int>(std::clamp(t / once, 1.0, kMostRuns)); };
    RETURN_IF_ERROR(SecondsOnStream(stream, runs(kSettle), launch).status());
    ASSIGN_OR_RETURN(seconds.emplace_back(), SecondsOnStream(stream, runs(kTimed), launch));
  }
  return seconds;
}

}  // namespace strata
