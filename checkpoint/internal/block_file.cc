#include "checkpoint/internal/block_file.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/crc32c.h"
#include "core/base/status.h"

namespace strata::internal {

absl::StatusOr<BlockFile> BlockFile::Open(Env& env, const std::string& dir, const FileRecord& record) {
  std::string path = dir + "/" + record.name;
  ASSIGN_OR_RETURN(auto file, env.OpenReadable(path));
  if (file->size() != record.bytes) {
    return absl::DataLossError(
        absl::StrFormat("%s: has %d bytes, but %d were written", path, file->size(), record.bytes));
  }
  return BlockFile(std::move(path), std::move(file), &record);
}

absl::Status BlockFile::ReadBlock(int64_t index, std::vector<std::byte>& block) const {
  const int64_t begin = index * kBlockBytes;
  block.resize(std::min(kBlockBytes, record_->bytes - begin));
  RETURN_IF_ERROR(file_->ReadAt(begin, block));
  const uint32_t want = record_->block_crc32c[index], got = Crc32c(block);
  if (got == want) return absl::OkStatus();
  return absl::DataLossError(absl::StrFormat("%s: bytes %d..%d are damaged (block %d: CRC32C %08x, written as %08x)",
                                             path_, begin, begin + std::ssize(block) - 1, index, got, want));
}

}  // namespace strata::internal
