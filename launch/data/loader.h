#pragma once
// Samples of seq_len tokens from one indexed dataset, read as one stream of T tokens (documents end with EOS, and the
// next one follows in the same sample). Window i: inputs are tokens [i*S, i*S + S), targets the tokens one further on,
// weights 1 for a real target and 0 for padding. With Packing::kIsolate the weight is 0 too where the target begins
// another document, and document_starts says where the documents begin (in this row, for one that began before); padding
// is a document by itself. Otherwise document_starts is 0.
//
// Training order is a pure function of (seed, global sample index): epoch e = index / samples_per_epoch, and within it
// sample = Permute(seed, e, ...). Resuming anywhere on any number of ranks is O(1), and no sample is dropped or repeated.
// Thread-safe; Sample and Window do not allocate.

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/data/indexed_dataset.h"
#include "launch/job/row_source.h"
#include "models/packing.h"

namespace strata {

class Loader {
 public:
  // Reads all tokens once. InvalidArgument naming the file: fewer than one whole sample, or a token id >= vocab_size
  // (vocabulary mismatch).
  static absl::StatusOr<Loader> Create(Env& env, const std::string& prefix, int64_t seq_len, uint64_t seed,
                                       int64_t vocab_size, Packing packing = Packing::kConcat);

  const IndexedDataset& dataset() const { return dataset_; }
  int64_t seq_len() const { return seq_len_; }
  int64_t samples_per_epoch() const { return (dataset_.num_tokens() - 1) / seq_len_; }  // whole windows

  // Training sample `global_index` >= 0. Always whole: it has no padding. Errors: IndexedDataset::Read's.
  absl::Status Sample(int64_t global_index, const RowSpans& row) const;

  // Evaluation, in stream order: the windows together have each of the T - 1 targets once. The last one may be short:
  // it is padded with token 0, target 0, weight 0.
  int64_t num_windows() const { return (dataset_.num_tokens() - 2) / seq_len_ + 1; }
  absl::Status Window(int64_t index, const RowSpans& row) const;

 private:
  Loader(IndexedDataset dataset, int64_t seq_len, uint64_t seed, Packing packing);
  void Isolate(int64_t begin, int64_t real, const RowSpans& row) const;

  IndexedDataset dataset_;
  int64_t seq_len_;
  uint64_t seed_;
  Packing packing_;
};

// The windows as rows of a job, index < num_windows. The loader must outlive it. Training rows: training_data.h.
class WindowRows final : public RowSource {
 public:
  explicit WindowRows(const Loader& loader) : loader_(loader) {}
  absl::Status Row(int64_t index, const RowSpans& row) const override { return loader_.Window(index, row); }

 private:
  const Loader& loader_;
};

}  // namespace strata
