#pragma once
// Reads boxes of tensors back, from any split that they were saved in. Does not use libhdf5: places come from the manifest.

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "checkpoint/internal/block_file.h"
#include "checkpoint/manifest.h"
#include "core/base/env.h"

namespace strata {

inline constexpr char kManifestName[] = "manifest.json";

inline constexpr size_t kCachedBlocks = 16;

// Not thread-safe: one reader a thread; several may read the same checkpoint. `env` must outlive it.
class CheckpointReader {
 public:
  // Reads and checks the manifest. Errors: NotFound (no manifest: an unfinished save, or no checkpoint), DataLoss (the
  // manifest is damaged), InvalidArgument (it says what a checkpoint cannot be, or is of another version).
  static absl::StatusOr<CheckpointReader> Open(Env& env, const std::string& dir);

  const std::string& dir() const { return dir_; }
  int64_t step() const { return manifest_->step; }
  const CheckpointMeta& meta() const { return manifest_->meta; }
  const std::vector<TensorRecord>& tensors() const { return manifest_->tensors; }
  const Manifest& manifest() const { return *manifest_; }
  const TensorRecord* Find(std::string_view name) const;  // null if there is none

  // Copies the wanted box to `out`, row-major, exactly its bytes. Every byte comes from a block whose checksum was found
  // right when it was read. The last kCachedBlocks are kept: tensors read in the order in which they were saved, of that
  // many files, cost one read of each block.
  // Errors: NotFound (no such tensor), InvalidArgument (dtype, global shape, box or out size differ), DataLoss.
  absl::Status Read(const TensorBox& want, std::span<std::byte> out);

  // The same, handed to fn in order, some MiB at a time.
  using SlabFn = absl::FunctionRef<absl::Status(std::span<const std::byte>)>;
  absl::Status ReadSlabs(const TensorBox& want, SlabFn fn);

 private:
  CheckpointReader(Env& env, std::string dir, Manifest manifest);
  absl::Status CheckWanted(const TensorBox& want, int64_t out_bytes) const;
  absl::Status ReadBytes(int file, int64_t offset, std::span<std::byte> out);
  struct CachedBlock {
    int file = -1;
    int64_t index = -1;
    uint64_t used = 0;  // when last: a count of uses
    std::vector<std::byte> bytes;
  };
  absl::StatusOr<std::span<const std::byte>> Block(int file, int64_t index);

  Env* env_;
  std::string dir_;
  std::unique_ptr<const Manifest> manifest_;  // on the heap: files_ point into it
  std::unordered_map<std::string_view, const TensorRecord*> index_;
  std::vector<std::optional<internal::BlockFile>> files_;  // opened at first use
  std::vector<CachedBlock> cache_;                         // at most kCachedBlocks
  uint64_t uses_ = 0;
};

}  // namespace strata
