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

// The mean seconds of each of `launches` alone, for longer than the chip takes to hold its power to the limit:
// each at the clock that its own power allows, so that energy counts and not cycles only. A chip at its limit P has a clock f
// where P = E f / n, of the n cycles of the work and their energy E, which grows with the voltage, about as f^2: so the time n / f goes as n^(2/3) E^(1/3), for
// a launch alone as for the whole step that it is a part of. The limit is held on average over longer than that, so a time depends on
// what ran before: after 50 ms of settling one of 50 ms is 0.9% off on an H200 (after 100 ms one of 100 ms 1.8%), and those that are
// close to the fastest are timed again, in an order that turns around. Launches that are over in no time are timed for less. Blocks.
inline absl::StatusOr<std::vector<double>> Alone(cudaStream_t stream, const Launches& launches) {
  constexpr double kSettle = 0.05, kTimed = 0.05;  // seconds
  constexpr double kMostRuns = 400, kClose = 1.02;
  constexpr int kRounds = 4, kRoundsOfAll = 2;
  const size_t count = launches.size();
  std::vector<double> once(count), sum(count), seconds(count);
  std::vector<size_t> left(count);
  for (size_t i = 0; i < count; ++i) {
    left[i] = i;
    RETURN_IF_ERROR(launches[i]());  // loads its code
    ASSIGN_OR_RETURN(once[i], SecondsOnStream(stream, 2, launches[i]));
  }
  for (int round = 1; round <= kRounds && (round <= kRoundsOfAll || left.size() > 1); ++round) {
    for (const size_t i : left) {
      const auto runs = [&](double t) { return static_cast<int>(std::clamp(t / once[i], 1.0, kMostRuns)); };
      RETURN_IF_ERROR(SecondsOnStream(stream, runs(kSettle), launches[i]).status());
      ASSIGN_OR_RETURN(const double s, SecondsOnStream(stream, runs(kTimed), launches[i]));
      sum[i] += s;
      seconds[i] = sum[i] / round;
    }
    std::reverse(left.begin(), left.end());
    if (round < kRoundsOfAll) continue;
    const double best = *std::min_element(seconds.begin(), seconds.end());
    std::erase_if(left, [&](size_t i) { return seconds[i] > kClose * best; });
  }
  return seconds;
}

}  // namespace strata
