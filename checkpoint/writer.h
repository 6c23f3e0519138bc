#pragma once
// Writes one rank's part of a checkpoint: all its boxes, in one HDF5 file.

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/manifest.h"
#include "core/base/env.h"

namespace strata {

// A box to save, and its elements: row-major, contiguous, of the box's size.
struct SavedBox : TensorBox {
  const std::byte* data = nullptr;
};

// Writes folder/DataFileName(rank), which must not exist yet, syncs it, reads it back and compares it with memory. A rank
// without boxes writes an empty file too. Any number of ranks may do so at once, each its own. HDF5 lays the file out on
// the real file system; all data goes through env.
// Errors: InvalidArgument for a bad name or box, DataLoss if other bytes come back than were written, else Env's.
absl::StatusOr<ShardRecord> WriteShard(Env& env, const std::string& folder, int rank, std::span<const SavedBox> boxes);

// The same of elements that are never in memory as a whole. Used by one thread. `env` must outlive it.
class ShardWriter {
 public:
  static absl::StatusOr<ShardWriter> Create(Env& env, const std::string& folder, int rank,
                                            std::vector<TensorBox> boxes);

  // The next bytes of a box (an index of `boxes`).
  absl::Status Append(size_t box, std::span<const std::byte> bytes);

  // Once every box has all its bytes.
  absl::StatusOr<ShardRecord> Finish();

 private:
  struct Box : TensorBox {
    int64_t offset_in_file = 0, bytes = 0;
    int64_t written = 0;
    uint32_t crc32c = 0;  // of what was written
  };
  ShardWriter(Env& env, const std::string& folder, std::string name)
      : env_(&env), path_(folder + "/" + name), name_(std::move(name)) {}
  absl::StatusOr<FileRecord> ReadBack() const;

  Env* env_;
  std::string path_, name_;
  std::vector<Box> boxes_;
  std::unique_ptr<WritableFile> file_;
};

}  // namespace strata
