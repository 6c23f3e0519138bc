#pragma once
// A data file of a checkpoint, read in blocks that are never handed out before their CRC32C is found right.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/manifest.h"
#include "core/base/env.h"

namespace strata::internal {

class BlockFile {
 public:
  // `record` must outlive the result. Errors: NotFound; DataLoss if the size is not the recorded one.
  static absl::StatusOr<BlockFile> Open(Env& env, const std::string& dir, const FileRecord& record);

  // Fills `block` with block `index`. DataLoss, naming the byte range, where its checksum fails. Thread-safe.
  absl::Status ReadBlock(int64_t index, std::vector<std::byte>& block) const;

 private:
  BlockFile(std::string path, std::unique_ptr<ReadableFile> file, const FileRecord* record)
      : path_(std::move(path)), file_(std::move(file)), record_(record) {}

  std::string path_;
  std::unique_ptr<ReadableFile> file_;
  const FileRecord* record_;
};

}  // namespace strata::internal
