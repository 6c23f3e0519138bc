#include "launch/data/token_sums.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/crc32c.h"
#include "core/base/status.h"

namespace strata {
namespace {

constexpr char kHead[] = "strata-sums 1";
constexpr std::string_view kLastLine = "crc32c ";
constexpr size_t kLastLineBytes = 7 + 8 + 1;
constexpr int64_t kMaxVocab = int64_t{1} << 31;

std::string FileLine(const char* name, const FileSums& sums) {
  std::string line = absl::StrFormat("%s %d", name, sums.bytes);
  for (const uint32_t crc : sums.blocks) line += absl::StrFormat(" %08x", crc);
  return line + "\n";
}

std::string LastLine(std::string_view above) {
  return absl::StrFormat("%s%08x\n", kLastLine, Crc32c(std::as_bytes(std::span(above))));
}

absl::Status Damaged() { return absl::InvalidArgumentError("not token sums, or damaged"); }

// The words of a line behind its name; empty where the line is another one.
std::vector<std::string> Words(const std::string& line, const char* name) {
  std::vector<std::string> words = absl::StrSplit(line, ' ');
  if (words.empty() || words[0] != name) return {};
  words.erase(words.begin());
  return words;
}

bool ParseFile(const std::string& line, const char* name, FileSums& sums) {
  const std::vector<std::string> words = Words(line, name);
  if (words.empty() || !absl::SimpleAtoi(words[0], &sums.bytes) || sums.bytes < 0) return false;
  for (size_t i = 1; i < words.size(); ++i) {
    if (!absl::SimpleHexAtoi(words[i], &sums.blocks.emplace_back())) return false;
  }
  return std::ssize(sums.blocks) == sums.bytes / kSumBlockBytes + (sums.bytes % kSumBlockBytes != 0);
}

}  // namespace

void FileSums::Add(std::span<const std::byte> more) {
  while (!more.empty()) {
    const int64_t in_block = bytes % kSumBlockBytes;
    if (in_block == 0) blocks.push_back(0);
    const auto part = more.first(std::min(more.size(), static_cast<size_t>(kSumBlockBytes - in_block)));
    blocks.back() = Crc32c(part, blocks.back());
    bytes += std::ssize(part);
    more = more.subspan(part.size());
  }
}

std::string ToText(const TokenSums& sums) {
  std::string text = absl::StrFormat("%s\nvocab %d\ntokenizer %08x\n", kHead, sums.vocab, sums.tokenizer);
  text += FileLine("bin", sums.bin) + FileLine("idx", sums.idx);
  return text + LastLine(text);
}

absl::StatusOr<TokenSums> ParseTokenSums(std::string_view text) {
  if (text.size() < kLastLineBytes) return Damaged();
  const std::string_view above = text.substr(0, text.size() - kLastLineBytes);
  if (text.substr(above.size()) != LastLine(above)) return Damaged();
  const std::vector<std::string> lines = absl::StrSplit(std::string(above), '\n');
  if (lines.size() != 6 || lines[0] != kHead || !lines[5].empty()) return Damaged();
  const std::vector<std::string> vocab = Words(lines[1], "vocab"), tokenizer = Words(lines[2], "tokenizer");
  TokenSums sums;
  if (vocab.size() != 1 || !absl::SimpleAtoi(vocab[0], &sums.vocab) || sums.vocab < 1 || sums.vocab > kMaxVocab ||
      tokenizer.size() != 1 || !absl::SimpleHexAtoi(tokenizer[0], &sums.tokenizer) ||
      !ParseFile(lines[3], "bin", sums.bin) || !ParseFile(lines[4], "idx", sums.idx)) {
    return Damaged();
  }
  return sums;
}

absl::StatusOr<std::optional<TokenSums>> ReadTokenSums(Env& env, const std::string& prefix) {
  const std::string path = prefix + ".sum";
  absl::StatusOr<std::string> text = ReadUserFile(env, path);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  if (!text.ok()) return text.status();
  absl::StatusOr<TokenSums> sums = ParseTokenSums(*text);
  if (!sums.ok()) return Annotate(sums.status(), path);
  return std::optional(*std::move(sums));
}

absl::Status CheckSize(const FileSums& sums, const std::string& path, int64_t bytes) {
  if (bytes == sums.bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: %d bytes, but %d were written (by its .sum)", path, bytes, sums.bytes));
}

absl::Status CheckBlock(const FileSums& sums, const std::string& path, size_t block, std::span<const std::byte> bytes) {
  const uint32_t crc = Crc32c(bytes);
  if (crc == sums.blocks[block]) return absl::OkStatus();
  const int64_t begin = static_cast<int64_t>(block) * kSumBlockBytes;
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: bytes %d to %d are not those that were written: checksum %08x, expected %08x", path, begin,
                      begin + std::ssize(bytes) - 1, crc, sums.blocks[block]));
}

absl::Status CheckBytes(const FileSums& sums, const std::string& path, std::span<const std::byte> bytes) {
  RETURN_IF_ERROR(CheckSize(sums, path, std::ssize(bytes)));
  for (size_t block = 0; block < sums.blocks.size(); ++block) {
    const size_t begin = block * kSumBlockBytes;
    const size_t size = std::min(static_cast<size_t>(kSumBlockBytes), bytes.size() - begin);
    RETURN_IF_ERROR(CheckBlock(sums, path, block, bytes.subspan(begin, size)));
  }
  return absl::OkStatus();
}

}  // namespace strata
