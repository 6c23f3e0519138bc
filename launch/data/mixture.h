#pragma once
// Which source each global sample comes from: an integer-rate (Bresenham) mixture, nested. Of sources 0, 1, ..., n - 1 with
// weights w, r = floor(w_0 / (w_0 + ... + w_{n-1}) 2^32) and taken(i) = floor(i r / 2^32). Source 0 has global sample i
// where taken(i + 1) > taken(i), as its own sample taken(i); sources 1, ..., n - 1 share the others in the same way, as
// samples i - taken(i) of their mixture. So each source's samples come in order, none is left out, and of the first N
// samples source k has its share of N to within k + 1 (and N n 2^-32).
// Immutable, thread-safe; O(sources) a sample, wherever it is.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace strata {

class Mixture {
 public:
  // At least one weight; all above 0.
  explicit Mixture(std::span<const double> weights);

  size_t num_sources() const { return rates_.size() + 1; }

  struct Place {
    size_t source = 0;
    int64_t sample = 0;  // of that source
  };
  Place At(int64_t index) const;

  // How many of the global samples [0, n) are of `source`.
  int64_t Taken(size_t source, int64_t n) const;

 private:
  std::vector<uint64_t> rates_;  // in 2^-32: of each source but the last, among itself and those behind it
};

}  // namespace strata
