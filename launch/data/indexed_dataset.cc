#include "launch/data/indexed_dataset.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic("MMIDIDX\0\0", 9);
constexpr uint64_t kVersion = 1;
constexpr uint8_t kInt32 = 4, kUint16 = 8;
constexpr int64_t kMaxUint16Vocab = 65536;
constexpr size_t kHeaderBytes = 9 + 8 + 1 + 8 + 8;
constexpr size_t kSequenceBytes = 4 + 8;  // length and offset
constexpr size_t kIndexBytes = 8;

int TokenBytes(int64_t vocab_size) { return vocab_size <= kMaxUint16Vocab ? 2 : 4; }

template <typename T>
T Load(const std::byte* at) {  // arrays of the index are not aligned
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <typename T>
void Store(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

absl::Status Bad(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrFormat("%s: %s", path, what));
}

struct Header {
  int token_bytes = 0;
  int64_t num_sequences = 0;
  int64_t num_indices = 0;  // documents + 1
};

absl::StatusOr<Header> ParseHeader(const std::string& path, std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes) return Bad(path, absl::StrFormat("%d bytes, too short for an index", bytes.size()));
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return Bad(path, "not a token index (it does not begin with MMIDIDX)");
  }
  const auto version = Load<uint64_t>(&bytes[9]);
  if (version != kVersion) return Bad(path, absl::StrFormat("version %d, only %d is known", version, kVersion));
  const auto code = Load<uint8_t>(&bytes[17]);
  if (code != kInt32 && code != kUint16) {
    return Bad(path, absl::StrFormat("token dtype code %d; 4 (int32) and 8 (uint16) are known", code));
  }
  const auto num_sequences = Load<uint64_t>(&bytes[18]), num_indices = Load<uint64_t>(&bytes[26]);
  const uint64_t room = bytes.size() - kHeaderBytes;
  if (num_sequences > room / kSequenceBytes || num_indices > room / kIndexBytes || num_indices < 1 ||
      num_sequences * kSequenceBytes + num_indices * kIndexBytes != room) {
    return Bad(path, absl::StrFormat("%d bytes do not hold the %d sequences and %d document indices it announces",
                                     bytes.size(), num_sequences, num_indices));
  }
  return Header{code == kUint16 ? 2 : 4, static_cast<int64_t>(num_sequences), static_cast<int64_t>(num_indices)};
}

// The first token of each sequence, then the number of tokens. Sequences must fill the .bin in order, without gaps.
absl::StatusOr<std::vector<int64_t>> ParseSequences(const std::string& path, const Header& header,
                                                    const std::byte* lengths, int64_t bin_bytes) {
  const std::byte* offsets = lengths + 4 * header.num_sequences;
  std::vector<int64_t> begins = {0};
  begins.reserve(header.num_sequences + 1);
  for (int64_t i = 0; i < header.num_sequences; ++i) {
    const auto length = Load<int32_t>(lengths + 4 * i);
    const auto offset = Load<int64_t>(offsets + 8 * i);
    const int64_t expected = begins.back() * header.token_bytes;  // at most bin_bytes
    if (offset != expected) {
      return Bad(path, absl::StrFormat("sequence %d is at byte %d of the .bin, expected %d", i, offset, expected));
    }
    if (length < 0 || length > (bin_bytes - offset) / header.token_bytes) {
      return Bad(path, absl::StrFormat("sequence %d has %d tokens at byte %d of a .bin of %d bytes", i, length, offset,
                                       bin_bytes));
    }
    begins.push_back(begins.back() + length);
  }
  if (begins.back() * header.token_bytes != bin_bytes) {
    return Bad(path, absl::StrFormat("describes %d tokens of %d bytes, but the .bin has %d bytes", begins.back(),
                                     header.token_bytes, bin_bytes));
  }
  return begins;
}

// The first token of each document, then the number of tokens. Document indices go from 0, never falling, to
// num_sequences.
absl::StatusOr<std::vector<int64_t>> ParseDocuments(const std::string& path, const Header& header,
                                                    const std::byte* indices, const std::vector<int64_t>& sequences) {
  std::vector<int64_t> begins;
  begins.reserve(header.num_indices);
  int64_t previous = 0;
  for (int64_t i = 0; i < header.num_indices; ++i) {
    const auto index = Load<int64_t>(indices + kIndexBytes * i);
    const bool first = i == 0, last = i == header.num_indices - 1;
    if ((first && index != 0) || (last && index != header.num_sequences) || index < previous ||
        index > header.num_sequences) {
      return Bad(path, absl::StrFormat("document index %d is %d; they must rise from 0 to %d, the number of sequences",
                                       i, index, header.num_sequences));
    }
    previous = index;
    begins.push_back(sequences[index]);
  }
  return begins;
}

}  // namespace

absl::StatusOr<IndexedDataset> IndexedDataset::Open(Env& env, const std::string& prefix) {
  const std::string path = prefix + ".idx";
  ASSIGN_OR_RETURN(const std::string idx, ReadUserFile(env, path));
  ASSIGN_OR_RETURN(auto bin, env.OpenLinked(prefix + ".bin"));
  const auto bytes = std::as_bytes(std::span(idx));
  ASSIGN_OR_RETURN(const Header header, ParseHeader(path, bytes));
  const std::byte* sequences = bytes.data() + kHeaderBytes;
  IndexedDataset dataset;
  ASSIGN_OR_RETURN(dataset.begins_, ParseSequences(path, header, sequences, bin->size()));
  ASSIGN_OR_RETURN(dataset.document_begins_,
                   ParseDocuments(path, header, sequences + kSequenceBytes * header.num_sequences, dataset.begins_));
  ASSIGN_OR_RETURN(dataset.sums_, ReadTokenSums(env, prefix));
  if (dataset.sums_) {
    RETURN_IF_ERROR(CheckSize(dataset.sums_->bin, prefix + ".bin", bin->size()));
    RETURN_IF_ERROR(CheckBytes(dataset.sums_->idx, path, bytes));
  }
  dataset.prefix_ = prefix;
  dataset.bin_ = std::move(bin);
  dataset.token_bytes_ = header.token_bytes;
  return dataset;
}

int64_t IndexedDataset::DocumentOf(int64_t token) const {
  const auto next = std::upper_bound(document_begins_.begin(), document_begins_.end(), token);
  return next - document_begins_.begin() - 1;
}

absl::Status IndexedDataset::Read(int64_t begin, std::span<int32_t> out) const {
  // Two-byte tokens are read into the second half of `out` and widened from the front: none is overwritten unread.
  const auto bytes = std::as_writable_bytes(out).last(out.size() * token_bytes_);
  const absl::Status read = bin_->ReadAt(begin * token_bytes_, bytes);
  if (!read.ok()) return absl::DataLossError(read.message());  // Unavailable would be the word of a lost peer
  if (token_bytes_ == 2) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = Load<uint16_t>(&bytes[2 * i]);
  }
  return absl::OkStatus();
}

IndexedDatasetWriter::IndexedDatasetWriter(Env& env, std::string prefix, int64_t vocab_size, uint32_t tokenizer_crc32c,
                                           std::unique_ptr<WritableFile> bin)
    : env_(env),
      prefix_(std::move(prefix)),
      vocab_size_(vocab_size),
      tokenizer_crc32c_(tokenizer_crc32c),
      bin_(std::move(bin)) {}

IndexedDatasetWriter::~IndexedDatasetWriter() {
  if (!finished_) env_.RemoveAll(prefix_ + ".bin.tmp").IgnoreError();
}

absl::StatusOr<std::unique_ptr<IndexedDatasetWriter>> IndexedDatasetWriter::Create(Env& env, const std::string& prefix,
                                                                                   int64_t vocab_size,
                                                                                   uint32_t tokenizer_crc32c) {
  ASSIGN_OR_RETURN(auto bin, env.OpenWritable(prefix + ".bin.tmp", Env::Open::kTruncate));
  return std::unique_ptr<IndexedDatasetWriter>(
      new IndexedDatasetWriter(env, prefix, vocab_size, tokenizer_crc32c, std::move(bin)));
}

absl::Status IndexedDatasetWriter::AddDocument(std::span<const int32_t> tokens) {
  if (tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return Bad(prefix_, absl::StrFormat("a document of %d tokens; the format allows 2^31 - 1", tokens.size()));
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocab_size_) {
      return Bad(prefix_, absl::StrFormat("token %d is outside the vocabulary of %d", token, vocab_size_));
    }
  }
  std::vector<uint16_t> narrow;
  auto bytes = std::as_bytes(tokens);
  if (TokenBytes(vocab_size_) == 2) {
    narrow.assign(tokens.begin(), tokens.end());
    bytes = std::as_bytes(std::span<const uint16_t>(narrow));
  }
  bin_sums_.Add(bytes);
  RETURN_IF_ERROR(bin_->Append(bytes));
  lengths_.push_back(static_cast<int32_t>(tokens.size()));
  return absl::OkStatus();
}

std::string IndexedDatasetWriter::Index() const {
  const int token_bytes = TokenBytes(vocab_size_);
  const uint64_t num_documents = lengths_.size();
  std::string index(kMagic);
  Store(&index, kVersion);
  Store(&index, token_bytes == 2 ? kUint16 : kInt32);
  Store(&index, num_documents);  // sequences
  Store(&index, num_documents + 1);
  for (const int32_t length : lengths_) Store(&index, length);
  int64_t offset = 0;
  for (const int32_t length : lengths_) {
    Store(&index, offset);
    offset += int64_t{length} * token_bytes;
  }
  for (uint64_t i = 0; i <= num_documents; ++i) Store(&index, static_cast<int64_t>(i));
  return index;
}

absl::Status IndexedDatasetWriter::Finish() {
  RETURN_IF_ERROR(bin_->Sync());
  RETURN_IF_ERROR(bin_->Close());
  const std::string index = Index();
  FileSums index_sums;
  index_sums.Add(std::as_bytes(std::span(index)));
  const TokenSums sums{vocab_size_, tokenizer_crc32c_, bin_sums_, index_sums};
  RETURN_IF_ERROR(env_.RemoveAll(prefix_ + ".idx"));  // an old index never stands beside new tokens
  RETURN_IF_ERROR(env_.Rename(prefix_ + ".bin.tmp", prefix_ + ".bin"));
  finished_ = true;
  RETURN_IF_ERROR(WriteTextAtomically(env_, prefix_ + ".sum", ToText(sums)));
  return WriteTextAtomically(env_, prefix_ + ".idx", index);
}

}  // namespace strata
