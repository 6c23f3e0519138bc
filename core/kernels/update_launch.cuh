#pragma once
// Launches of an optimizer's update (update.cuh).

#include <algorithm>

#include "core/kernels/update.cuh"

namespace strata {

// Elements [begin, end) of the buckets, which all begin at multiples of 16 bytes if `wide`.
template <typename Rule, typename Grad, typename Master>
void LaunchUpdateOf(cudaStream_t stream, const Rule& rule, const DecaySegments& segments,
                    const Buckets<Rule::kStates, Grad, Master>& b, bool wide, const StepScalars* now, int64_t begin,
                    int64_t end) {
  const auto kernel = wide ? UpdateKernel<Rule, Grad, Master, true> : UpdateKernel<Rule, Grad, Master, false>;
  const auto blocks = static_cast<unsigned>(Ceil(end - begin, kUpdateTile));
  kernel<<<blocks, kUpdateThreads, 0, stream>>>(rule, segments, b, now, begin, end);
}

// The buckets hold elements [origin, origin + count) of what the ranges are of.
template <typename Rule, typename Grad, typename Master>
void LaunchUpdate(cudaStream_t stream, const Rule& rule, const Buckets<Rule::kStates, Grad, Master>& b,
                  const StepScalars* now, int64_t origin, int64_t count, std::span<const DecayRange> ranges) {
  bool wide = Aligned16({b.w, b.grad, b.live});
  for (const float* s : b.state) wide = wide && Aligned16({s});
  const auto begin_of = [&](size_t r) { return std::clamp<int64_t>(ranges[r].range.offset - origin, 0, count); };
  const auto end_of = [&](size_t r) {
    return std::clamp<int64_t>(ranges[r].range.offset + ranges[r].range.count - origin, 0, count);
  };
  size_t next = 0;
  for (int64_t begin = 0; begin < count;) {
    while (next > 0 && end_of(next - 1) > begin) --next;
    DecaySegments segments;
    for (; next < ranges.size() && segments.count < DecaySegments::kMax; ++next) {
      if (begin_of(next) == end_of(next)) continue;
      segments.begin[segments.count] = begin_of(next);
      segments.end[segments.count] = end_of(next);
      segments.decay[segments.count++] = static_cast<float>(ranges[next].decay);
    }
    // Ranges that are left over begin in the next launch, at 16 bytes of each tensor.
    const int64_t end = next < ranges.size() ? begin_of(next) / 8 * 8 : count;
    LaunchUpdateOf(stream, rule, segments, b, wide, now, begin, end);
    begin = end;
  }
}

}  // namespace strata
