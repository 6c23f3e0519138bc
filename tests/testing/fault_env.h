#pragma once
// An Env over another one that shows every operation to a hook first, which may record it, fail it or end the process,
// and that can flip a bit of what is written. Syncs end at the hook: tests do not wait for disks. Thread-safe where the hook
// is.

#include <atomic>
#include <functional>
#include <string>
#include <string_view>

#include "core/base/env.h"

namespace strata::testing {

class FaultEnv : public Env {
 public:
  // Called before each operation: "write", "sync", "close" and "read" of files, and "create", "open", "mkdir", "rename",
  // "remove", "syncdir", "list" of paths. An error is returned in the operation's place.
  using Hook = std::function<absl::Status(std::string_view operation, const std::string& path)>;

  explicit FaultEnv(
      Hook hook = [](std::string_view, const std::string&) { return absl::OkStatus(); }, Env& base = Env::Posix())
      : base_(base), hook_(std::move(hook)) {}
  void FlipBitOfNextWrite() { flip_ = true; }
  // From now on a write that fails has written its first half.
  void MakeFailedWritesShort() { short_writes_ = true; }

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenWritable(const std::string& path, Open mode) override;
  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenReadable(const std::string& path) override;
  absl::Status MakeDirs(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status RemoveAll(const std::string& path) override;
  absl::Status SyncDir(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  bool Exists(const std::string& path) override { return base_.Exists(path); }

 private:
  class Writable;
  class Readable;

  Env& base_;
  const Hook hook_;
  std::atomic<bool> flip_ = false, short_writes_ = false;
};

}  // namespace strata::testing
