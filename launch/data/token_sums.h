#pragma once
// PREFIX.sum beside token files: what PREFIX.bin and PREFIX.idx were when they were written, and of which vocabulary. Text:
//   strata-sums 1
//   vocab 2048
//   tokenizer 1a2b3c4d            CRC32C of the tokenizer's model; 00000000: not known
//   bin 2384420 00112233 44556677 bytes, then the CRC32C of each MiB of them
//   idx 58 8899aabb
//   crc32c ccddeeff               of the lines above

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/env.h"

namespace strata {

inline constexpr int64_t kSumBlockBytes = int64_t{1} << 20;

struct FileSums {
  int64_t bytes = 0;
  std::vector<uint32_t> blocks;  // CRC32C of each kSumBlockBytes; the last block may be shorter

  void Add(std::span<const std::byte> more);  // what follows in the file
  bool operator==(const FileSums&) const = default;
};

struct TokenSums {
  int64_t vocab = 0;
  uint32_t tokenizer = 0;  // Tokenizer::crc32c; 0: not known
  FileSums bin, idx;
  bool operator==(const TokenSums&) const = default;
};

std::string ToText(const TokenSums& sums);
absl::StatusOr<TokenSums> ParseTokenSums(std::string_view text);  // InvalidArgument: not what ToText makes

// PREFIX.sum; nothing where there is none. InvalidArgument, naming the file, where it is damaged.
absl::StatusOr<std::optional<TokenSums>> ReadTokenSums(Env& env, const std::string& prefix);

// What is held against the sums of `path`. InvalidArgument: not as it was written, with the place.
absl::Status CheckSize(const FileSums& sums, const std::string& path, int64_t bytes);
absl::Status CheckBlock(const FileSums& sums, const std::string& path, size_t block, std::span<const std::byte> bytes);
absl::Status CheckBytes(const FileSums& sums, const std::string& path, std::span<const std::byte> bytes);  // the whole

}  // namespace strata
