// Env on POSIX system calls. Calls interrupted by a signal are repeated; short reads and writes are continued.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/env.h"
#include "core/base/status.h"

namespace strata {
namespace {

absl::StatusCode CodeOf(int error) {
  constexpr std::pair<int, absl::StatusCode> kCodes[] = {
      {ENOENT, absl::StatusCode::kNotFound},          {EEXIST, absl::StatusCode::kAlreadyExists},
      {ENOTEMPTY, absl::StatusCode::kAlreadyExists},  {EACCES, absl::StatusCode::kPermissionDenied},
      {EPERM, absl::StatusCode::kPermissionDenied},   {EROFS, absl::StatusCode::kPermissionDenied},
      {ENOSPC, absl::StatusCode::kResourceExhausted}, {EDQUOT, absl::StatusCode::kResourceExhausted},
  };
  for (const auto& [value, code] : kCodes) {
    if (value == error) return code;
  }
  return absl::StatusCode::kUnavailable;
}

absl::Status SystemError(std::string_view call, const std::string& path, int error) {
  return absl::Status(CodeOf(error), absl::StrFormat("%s: %s: %s", path, call, std::generic_category().message(error)));
}

// Repeats a system call while a signal interrupts it.
template <typename Call>
auto Retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

struct OpenedFile {
  Descriptor descriptor;
  int64_t size;
};

// A regular file. O_NONBLOCK so that a FIFO in its place is an error, not a hang.
absl::StatusOr<OpenedFile> OpenRegular(const std::string& path, int flags) {
  Descriptor descriptor(Retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0666); }));
  if (descriptor.get() < 0) return SystemError("open", path, errno);
  struct stat info;
  if (::fstat(descriptor.get(), &info) < 0) return SystemError("stat", path, errno);
  if (!S_ISREG(info.st_mode)) return absl::UnavailableError(absl::StrFormat("%s: not a regular file", path));
  return OpenedFile{std::move(descriptor), info.st_size};
}

class PosixWritableFile : public WritableFile {
 public:
  PosixWritableFile(std::string path, OpenedFile file)
      : path_(std::move(path)), descriptor_(std::move(file.descriptor)), end_(file.size) {}

  absl::Status WriteAt(int64_t offset, std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = Retry([&] { return ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), offset); });
      if (n < 0) return SystemError("write", path_, errno);
      if (n == 0) return SystemError("write", path_, ENOSPC);
      offset += n;
      bytes = bytes.subspan(n);
      end_ = std::max(end_, offset);
    }
    return absl::OkStatus();
  }

  absl::Status Append(std::span<const std::byte> bytes) override { return WriteAt(end_, bytes); }

  absl::Status Sync() override {
    if (Retry([&] { return ::fsync(descriptor_.get()); }) < 0) return SystemError("fsync", path_, errno);
    return absl::OkStatus();
  }

  absl::Status Close() override {
    // Linux has released the descriptor even where close reports EINTR.
    if (::close(descriptor_.release()) < 0 && errno != EINTR) return SystemError("close", path_, errno);
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  Descriptor descriptor_;
  int64_t end_;  // where Append writes
};

class PosixReadableFile : public ReadableFile {
 public:
  PosixReadableFile(std::string path, OpenedFile file) : path_(std::move(path)), file_(std::move(file)) {}

  int64_t size() const override { return file_.size; }

  absl::Status ReadAt(int64_t offset, std::span<std::byte> bytes) const override {
    while (!bytes.empty()) {
      const ssize_t n = Retry([&] { return ::pread(file_.descriptor.get(), bytes.data(), bytes.size(), offset); });
      if (n < 0) return SystemError("read", path_, errno);
      if (n == 0) {
        return absl::DataLossError(
            absl::StrFormat("%s: ends at byte %d, %d more bytes wanted", path_, offset, bytes.size()));
      }
      offset += n;
      bytes = bytes.subspan(n);
    }
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  const OpenedFile file_;
};

class PosixEnv : public Env {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenWritable(const std::string& path, Open mode) override {
    ASSIGN_OR_RETURN(auto file, OpenRegular(path, O_WRONLY | (mode == Open::kTruncate ? O_CREAT | O_TRUNC : 0)));
    return std::make_unique<PosixWritableFile>(path, std::move(file));
  }

  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenReadable(const std::string& path) override {
    ASSIGN_OR_RETURN(auto file, OpenRegular(path, O_RDONLY | O_NOFOLLOW));
    return std::make_unique<PosixReadableFile>(path, std::move(file));
  }

  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenLinked(const std::string& path) override {
    ASSIGN_OR_RETURN(auto file, OpenRegular(path, O_RDONLY));
    return std::make_unique<PosixReadableFile>(path, std::move(file));
  }

  absl::Status MakeDirs(const std::string& path) override {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) return SystemError("mkdir", path, error.value());
    return absl::OkStatus();
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) < 0) return SystemError("rename to " + to, from, errno);
    return absl::OkStatus();
  }

  absl::Status RemoveAll(const std::string& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) return SystemError("remove", path, error.value());
    return absl::OkStatus();
  }

  absl::Status SyncDir(const std::string& path) override {
    Descriptor directory(Retry([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
    if (directory.get() < 0) return SystemError("open", path, errno);
    if (Retry([&] { return ::fsync(directory.get()); }) < 0) return SystemError("fsync", path, errno);
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    std::error_code error;
    std::vector<std::string> names;
    std::filesystem::directory_iterator entry(path, error);
    for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
      names.push_back(entry->path().filename().string());
    }
    if (error) return SystemError("list", path, error.value());
    std::sort(names.begin(), names.end());
    return names;
  }

  bool Exists(const std::string& path) override {
    struct stat info;
    return ::lstat(path.c_str(), &info) == 0;
  }
};

}  // namespace

absl::StatusOr<std::string> ReadKernelText(const std::string& path) {
  ASSIGN_OR_RETURN(const auto file, OpenRegular(path, O_RDONLY));
  std::string text(1 << 20, '\0');
  size_t end = 0;
  while (end < text.size()) {
    const ssize_t n = Retry([&] { return ::read(file.descriptor.get(), text.data() + end, text.size() - end); });
    if (n < 0) return SystemError("read", path, errno);
    if (n == 0) break;
    end += n;
  }
  text.resize(end);
  return text;
}

Env& Env::Posix() {
  static PosixEnv env;
  return env;
}

}  // namespace strata
