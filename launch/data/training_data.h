#pragma once
// The training samples of a job: one loader a source, mixed by weight. Source k's order is that of seed + k 2^32, so one
// source alone is in the order of its Loader. Immutable, thread-safe.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "launch/data/loader.h"
#include "launch/data/mixture.h"
#include "launch/job/row_source.h"

namespace strata {

inline uint64_t SourceSeed(uint64_t seed, size_t source) { return seed + (uint64_t{source} << 32); }

struct TrainingData {
  std::vector<Loader> sources;  // at least one
  Mixture mixture;              // of as many

  // The global samples [first, first + count) by source: "samples 8 to 15", and of several sources
  // "samples 8 to 15 (web/train 5 to 9, books/train 3 to 5)".
  std::string Describe(int64_t first, int64_t count) const;
};

// Its samples as rows of a job. `data` must outlive it.
class TrainRows final : public RowSource {
 public:
  explicit TrainRows(const TrainingData& data) : data_(data) {}
  absl::Status Row(int64_t index, const RowSpans& row) const override {
    const Mixture::Place place = data_.mixture.At(index);
    return data_.sources[place.source].Sample(place.sample, row);
  }

 private:
  const TrainingData& data_;
};

}  // namespace strata
