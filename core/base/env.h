#pragma once
// The one boundary for file input and output, so that tests can put a fault-injecting file system underneath.
// Paths are std::string; every call returns absl::Status naming the path and the system error:
// NotFound (ENOENT), AlreadyExists, PermissionDenied, ResourceExhausted (ENOSPC, EDQUOT), else Unavailable.
// Env is thread-safe; a file object is used by one thread at a time, except ReadAt, which is thread-safe.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace strata {

class WritableFile {
 public:
  virtual ~WritableFile() = default;  // closes without reporting: call Close()
  virtual absl::Status WriteAt(int64_t offset, std::span<const std::byte> bytes) = 0;  // all of it, or an error
  virtual absl::Status Append(std::span<const std::byte> bytes) = 0;
  virtual absl::Status Sync() = 0;  // fsync
  virtual absl::Status Close() = 0;
};

class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  virtual int64_t size() const = 0;
  // Exactly bytes.size() bytes. DataLoss if the file ends before.
  virtual absl::Status ReadAt(int64_t offset, std::span<std::byte> bytes) const = 0;
};

class Env {
 public:
  enum class Open : uint8_t {
    kTruncate,
    kExisting
  };  // create or empty it | open an existing file for writing in place

  virtual ~Env() = default;
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> OpenWritable(const std::string& path, Open mode) = 0;
  virtual absl::StatusOr<std::unique_ptr<ReadableFile>> OpenReadable(const std::string& path) = 0;  // O_NOFOLLOW
  // The same where `path` may be a symbolic link: for a user's own files.
  virtual absl::StatusOr<std::unique_ptr<ReadableFile>> OpenLinked(const std::string& path) {
    return OpenReadable(path);
  }
  virtual absl::Status MakeDirs(const std::string& path) = 0;  // mkdir -p
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status RemoveAll(const std::string& path) = 0;  // rm -rf; OK if absent
  virtual absl::Status SyncDir(const std::string& path) = 0;
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;  // names, sorted
  virtual bool Exists(const std::string& path) = 0;

  static Env& Posix();
};

// Whole small files. ReadText refuses files over max_bytes with InvalidArgument.
absl::StatusOr<std::string> ReadText(Env& env, const std::string& path, int64_t max_bytes = int64_t{1} << 30);
// The whole of a user's own file, of any size, also behind a symbolic link.
absl::StatusOr<std::string> ReadUserFile(Env& env, const std::string& path);
// What the kernel says in a file whose size is not known before it is read, such as /proc/meminfo. At most 1 MiB of it.
absl::StatusOr<std::string> ReadKernelText(const std::string& path);
// Writes path.tmp, syncs, renames, syncs the folder: path holds the old text or the new, never a part.
absl::Status WriteTextAtomically(Env& env, const std::string& path, std::string_view text);

}  // namespace strata
