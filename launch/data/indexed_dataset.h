#pragma once
// Token files in Megatron-LM's indexed format (megatron/core/datasets/indexed_dataset.py), little-endian:
//   PREFIX.bin  the tokens of all sequences, one after the other
//   PREFIX.idx  "MMIDIDX\0\0", u64 version = 1, u8 dtype code (4: int32, 8: uint16), u64 num_sequences,
//               u64 num_document_indices, int32 length of each sequence in tokens, int64 byte offset of each sequence
//               in the .bin, int64 document indices (first sequence of each document, then num_sequences)
// The writer makes one sequence a document, and uint16 tokens where the vocabulary allows it. Beside them it puts PREFIX.sum
// (token_sums.h), which other tools need not know; a dataset without one opens too.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/data/token_sums.h"

namespace strata {

// Reader; immutable, thread-safe. Both files must stay as they are while it is open.
class IndexedDataset {
 public:
  // Checks magic, version, dtype, both file sizes and every length, offset and document index; and, where there are sums,
  // those of the index. InvalidArgument names the file and what is wrong in it; a missing file is the Env's NotFound.
  static absl::StatusOr<IndexedDataset> Open(Env& env, const std::string& prefix);

  const std::string& prefix() const { return prefix_; }
  int token_bytes() const { return token_bytes_; }  // 2 or 4
  int64_t num_tokens() const { return begins_.back(); }
  int64_t num_sequences() const { return static_cast<int64_t>(begins_.size()) - 1; }
  int64_t num_documents() const { return static_cast<int64_t>(document_begins_.size()) - 1; }
  // Tokens [SequenceBegin(i), SequenceBegin(i + 1)) of the stream are sequence i; i <= num_sequences.
  int64_t SequenceBegin(int64_t i) const { return begins_[i]; }
  // The same of document i <= num_documents. Documents may be empty.
  int64_t DocumentBegin(int64_t i) const { return document_begins_[i]; }
  int64_t DocumentOf(int64_t token) const;  // which one token < num_tokens is of; O(log num_documents)

  const std::optional<TokenSums>& sums() const { return sums_; }

  // Copies tokens [begin, begin + out.size()) of the concatenated stream, which must be in [0, num_tokens]. No allocation.
  // Reads the file (so that a bad disk or a file cut short is an error, not a signal): DataLoss, naming it.
  absl::Status Read(int64_t begin, std::span<int32_t> out) const;

 private:
  std::string prefix_;
  std::unique_ptr<ReadableFile> bin_;
  int token_bytes_ = 0;
  std::vector<int64_t> begins_;           // num_sequences + 1
  std::vector<int64_t> document_begins_;  // num_documents + 1
  std::optional<TokenSums> sums_;
};

// Writes PREFIX.bin.tmp; Finish gives it its name and then writes the sums and, atomically, the index, so that a
// half-written dataset has no index. One thread. Without Finish the destructor removes what was written.
class IndexedDatasetWriter {
 public:
  // tokenizer_crc32c: Tokenizer::crc32c, 0 where there is none.
  static absl::StatusOr<std::unique_ptr<IndexedDatasetWriter>> Create(Env& env, const std::string& prefix,
                                                                      int64_t vocab_size,
                                                                      uint32_t tokenizer_crc32c = 0);
  ~IndexedDatasetWriter();
  IndexedDatasetWriter(const IndexedDatasetWriter&) = delete;
  IndexedDatasetWriter& operator=(const IndexedDatasetWriter&) = delete;

  absl::Status AddDocument(std::span<const int32_t> tokens);  // InvalidArgument: an id outside the vocabulary
  absl::Status Finish();

 private:
  IndexedDatasetWriter(Env& env, std::string prefix, int64_t vocab_size, uint32_t tokenizer_crc32c,
                       std::unique_ptr<WritableFile> bin);
  std::string Index() const;

  Env& env_;
  const std::string prefix_;
  const int64_t vocab_size_;
  const uint32_t tokenizer_crc32c_;
  const std::unique_ptr<WritableFile> bin_;
  std::vector<int32_t> lengths_;
  FileSums bin_sums_;
  bool finished_ = false;
};

}  // namespace strata
