#include "launch/data/inspect.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <limits>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/crc32c.h"
#include "core/base/status.h"
#include "launch/data/indexed_dataset.h"
#include "launch/tokenizer/pieces.h"
#include "launch/tokenizer/tokenizer.h"

namespace strata {
namespace {

constexpr int64_t kScanTokens = 1 << 18;
constexpr size_t kMaxProblems = 10;

absl::Status ForEachToken(const IndexedDataset& dataset, const std::function<void(int64_t at, int32_t id)>& fn) {
  std::vector<int32_t> buffer(static_cast<size_t>(std::min(kScanTokens, dataset.num_tokens())));
  for (int64_t begin = 0; begin < dataset.num_tokens(); begin += kScanTokens) {
    const std::span tokens = std::span(buffer).first(std::min(kScanTokens, dataset.num_tokens() - begin));
    RETURN_IF_ERROR(dataset.Read(begin, tokens));
    for (size_t i = 0; i < tokens.size(); ++i) fn(begin + static_cast<int64_t>(i), tokens[i]);
  }
  return absl::OkStatus();
}

std::string Lengths(const IndexedDataset& dataset) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < dataset.num_documents(); ++i) {
    lengths.push_back(dataset.DocumentBegin(i + 1) - dataset.DocumentBegin(i));
  }
  if (lengths.empty()) return "";
  const auto [min, max] = std::ranges::minmax(lengths);
  const auto middle = lengths.begin() + std::ssize(lengths) / 2;
  std::ranges::nth_element(lengths, middle);
  return absl::StrFormat(" of %d to %d tokens, median %d", min, max, *middle);
}

std::string Sums(const TokenSums& sums) {
  const auto file = [](const char* name, const FileSums& file) {
    std::string crcs;  // a few; all are in the file
    for (size_t i = 0; i < std::min<size_t>(file.blocks.size(), 4); ++i) {
      crcs += absl::StrFormat(" %08x", file.blocks[i]);
    }
    return absl::StrFormat("%s%s%s", name, crcs, file.blocks.size() > 4 ? " ..." : "");
  };
  return absl::StrFormat("%s; %s (CRC32C of each MiB)", file("bin", sums.bin), file("idx", sums.idx));
}

// Collects damage; the text of more than kMaxProblems ends with their number.
class Problems {
 public:
  void Add(const absl::Status& status) {
    if (!status.ok() && ++count_ <= kMaxProblems) lines_.emplace_back(status.message());
  }
  bool none() const { return count_ == 0; }
  absl::Status ToStatus() const {
    std::string text = absl::StrJoin(lines_, "\n");
    if (count_ > kMaxProblems) text += absl::StrFormat("\nand %d more", count_ - kMaxProblems);
    return absl::DataLossError(text);
  }

 private:
  size_t count_ = 0;
  std::vector<std::string> lines_;
};

void VerifyFile(Env& env, const std::string& path, const FileSums& sums, Problems& problems) {
  const absl::StatusOr<std::unique_ptr<ReadableFile>> file = env.OpenLinked(path);
  if (!file.ok()) return problems.Add(file.status());
  problems.Add(CheckSize(sums, path, (*file)->size()));
  std::vector<std::byte> buffer(kSumBlockBytes);
  const int64_t end = std::min(sums.bytes, (*file)->size());
  for (int64_t begin = 0; begin < end; begin += kSumBlockBytes) {
    const size_t block = static_cast<size_t>(begin / kSumBlockBytes);
    const std::span bytes = std::span(buffer).first(std::min(kSumBlockBytes, sums.bytes - begin));
    if (begin + std::ssize(bytes) > end) return;  // cut short: the size says so
    const absl::Status read = (*file)->ReadAt(begin, bytes);
    problems.Add(read.ok() ? CheckBlock(sums, path, block, bytes) : read);
  }
}

// The tokenizer beside the files, which they are read with.
void VerifyTokenizer(Env& env, const std::string& prefix, uint32_t crc32c, Problems& problems) {
  const std::string path = TokenizerBeside(env, prefix);
  if (crc32c == 0 || !env.Exists(path)) return;
  const absl::StatusOr<std::string> model = ReadUserFile(env, path);
  if (!model.ok()) return problems.Add(model.status());
  if (Crc32c(std::as_bytes(std::span(*model))) == crc32c) return;
  problems.Add(absl::DataLossError(absl::StrFormat("%s is not the tokenizer that %s was made with", path, prefix)));
}

void VerifyTokens(const IndexedDataset& dataset, Problems& problems) {
  const int64_t vocab = dataset.sums() ? dataset.sums()->vocab : int64_t{std::numeric_limits<int32_t>::max()} + 1;
  problems.Add(ForEachToken(dataset, [&](int64_t at, int32_t id) {
    if (id >= 0 && id < vocab) return;
    problems.Add(absl::DataLossError(absl::StrFormat("%s.bin: byte %d: token %d is not in the vocabulary of %d",
                                                     dataset.prefix(), at * dataset.token_bytes(), id, vocab)));
  }));
}

}  // namespace

std::string TokenizerBeside(Env& env, const std::string& prefix) {
  return TokenizerIn(env, std::filesystem::path(prefix).parent_path().string());
}

std::vector<std::string> DatasetsAt(Env& env, const std::string& path) {
  if (env.Exists(path + ".idx") || !env.Exists(path + "/train.idx")) return {path};
  std::vector<std::string> prefixes = {path + "/train"};
  if (env.Exists(path + "/valid.idx")) prefixes.push_back(path + "/valid");
  return prefixes;
}

absl::StatusOr<std::string> DescribeDataset(Env& env, const std::string& prefix) {
  ASSIGN_OR_RETURN(const IndexedDataset dataset, IndexedDataset::Open(env, prefix));
  std::vector<bool> used;  // by id
  RETURN_IF_ERROR(ForEachToken(dataset, [&](int64_t, int32_t id) {
    if (id < 0) return;
    if (static_cast<size_t>(id) >= used.size()) used.resize(static_cast<size_t>(id) + 1);
    used[id] = true;
  }));
  const auto& sums = dataset.sums();
  std::string text = absl::StrFormat("%s\n", prefix);
  const auto add = [&](const char* name, const std::string& value) {
    text += absl::StrFormat("  %-10s  %s\n", name, value);
  };
  add("format", absl::StrFormat("Megatron index, version 1, %s", dataset.token_bytes() == 2 ? "uint16" : "int32"));
  add("documents", absl::StrFormat("%d%s", dataset.num_documents(), Lengths(dataset)));
  add("sequences", absl::StrFormat("%d", dataset.num_sequences()));
  add("tokens", absl::StrFormat("%d in %d bytes", dataset.num_tokens(), dataset.num_tokens() * dataset.token_bytes()));
  add("vocabulary", absl::StrFormat("%s; %d different ids, the largest is %d",
                                    sums ? absl::StrFormat("%d pieces", sums->vocab) : "not known",
                                    std::ranges::count(used, true), std::ssize(used) - 1));
  add("checksums", sums ? Sums(*sums) : absl::StrFormat("none (there is no %s.sum)", prefix));
  return text;
}

absl::StatusOr<std::string> DocumentTexts(Env& env, const std::string& prefix, const std::string& tokenizer,
                                          int64_t begin, int64_t end, ShowAs as) {
  ASSIGN_OR_RETURN(const IndexedDataset dataset, IndexedDataset::Open(env, prefix));
  ASSIGN_OR_RETURN(const Tokenizer pieces, Tokenizer::Load(env, tokenizer));
  if (dataset.sums() && dataset.sums()->tokenizer != 0 && dataset.sums()->tokenizer != pieces.crc32c()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s is not the tokenizer that %s was made with", tokenizer, prefix));
  }
  if (begin < 0 || begin > end || end > dataset.num_documents()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s has documents 0 to %d, not %d:%d", prefix, dataset.num_documents() - 1, begin, end));
  }
  std::string text;
  for (int64_t i = begin; i < end; ++i) {
    std::vector<int32_t> ids(static_cast<size_t>(dataset.DocumentBegin(i + 1) - dataset.DocumentBegin(i)));
    RETURN_IF_ERROR(dataset.Read(dataset.DocumentBegin(i), ids));
    text += absl::StrFormat("== document %d: %d tokens\n", i, ids.size());
    text += as == ShowAs::kPieces ? PieceLines(pieces, ids) : pieces.Decode(ids) + "\n";
  }
  return text;
}

absl::StatusOr<std::string> VerifyDataset(Env& env, const std::string& prefix) {
  for (const char* suffix : {".idx", ".bin"}) {
    if (!env.Exists(prefix + suffix))
      return absl::NotFoundError(absl::StrFormat("%s%s does not exist", prefix, suffix));
  }
  Problems problems;
  const absl::StatusOr<std::optional<TokenSums>> sums = ReadTokenSums(env, prefix);
  problems.Add(sums.status());
  const bool summed = sums.ok() && sums->has_value();
  if (summed) {
    VerifyFile(env, prefix + ".idx", (*sums)->idx, problems);
    VerifyFile(env, prefix + ".bin", (*sums)->bin, problems);
    VerifyTokenizer(env, prefix, (*sums)->tokenizer, problems);
  }
  if (!problems.none()) return problems.ToStatus();
  const absl::StatusOr<IndexedDataset> dataset = IndexedDataset::Open(env, prefix);
  problems.Add(dataset.status());
  if (dataset.ok()) VerifyTokens(*dataset, problems);
  if (!problems.none()) return problems.ToStatus();
  return absl::StrFormat("%s: whole: %d documents, %d tokens%s\n", prefix, dataset->num_documents(),
                         dataset->num_tokens(),
                         summed ? "" : "; there is no .sum, so checksums and vocabulary are not checked");
}

}  // namespace strata
