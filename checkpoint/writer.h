#pragma once
// Writes one rank's part of a checkpoint: all its boxes, in one HDF5 file.

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "checkpoint/manifest.h"
#include "core/base/env.h"

namespace strata {

// A box to save, and its elements: row-major, contiguous, of the box's size.
struct SavedBox : TensorBox {
  const std::byte* data = nullptr;
};

// Writes tmp_dir/DataFileName(rank), which must not exist yet, syncs it, reads it back and compares it with memory. A rank
// without boxes writes an empty file too. Any number of ranks may do so at once, each its own. HDF5 lays the file out on
// the real file system; all data goes through env.
// Errors: InvalidArgument for a bad name or box, DataLoss if other bytes come back than were written, else Env's.
absl::StatusOr<ShardRecord> WriteShard(Env& env, const std::string& tmp_dir, int rank, std::span<const SavedBox> boxes);

}  // namespace strata
