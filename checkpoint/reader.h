#pragma once
// Reads boxes of tensors back, from any split that they were saved in. Does not use libhdf5: places come from the manifest.

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/internal/block_file.h"
#include "checkpoint/manifest.h"
#include "core/base/env.h"

namespace strata {

inline constexpr char kManifestName[] = "manifest.json";

// Not thread-safe: one reader a thread; several may read the same checkpoint. `env` must outlive it.
class CheckpointReader {
 public:
  // Reads and checks the manifest. Errors: NotFound (no manifest: an unfinished save, or no checkpoint), DataLoss (the
  // manifest is damaged), InvalidArgument (it says what a checkpoint cannot be, or is of another version).
  static absl::StatusOr<CheckpointReader> Open(Env& env, const std::string& dir);

  int64_t step() const { return manifest_->step; }
  const CheckpointMeta& meta() const { return manifest_->meta; }
  const std::vector<TensorRecord>& tensors() const { return manifest_->tensors; }
  const Manifest& manifest() const { return *manifest_; }

  // Copies the wanted box to `out`, row-major, exactly its bytes. Every byte comes from a block whose checksum was found
  // right just before. One block is kept, so small tensors read in file order cost one read of a block.
  // Errors: NotFound (no such tensor), InvalidArgument (dtype, global shape, box or out size differ), DataLoss.
  absl::Status Read(const TensorBox& want, std::span<std::byte> out);

 private:
  CheckpointReader(Env& env, std::string dir, Manifest manifest);
  absl::Status CheckWanted(const TensorBox& want, int64_t out_bytes) const;
  absl::Status ReadBytes(int file, int64_t offset, std::span<std::byte> out);
  absl::Status LoadBlock(int file, int64_t index);

  Env* env_;
  std::string dir_;
  std::unique_ptr<const Manifest> manifest_;  // on the heap: files_ point into it
  std::unordered_map<std::string, const TensorRecord*> index_;
  std::vector<std::optional<internal::BlockFile>> files_;  // opened at first use
  int block_file_ = -1;                                    // what block_ holds
  int64_t block_index_ = -1;
  std::vector<std::byte> block_;
};

}  // namespace strata
