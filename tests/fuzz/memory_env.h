#pragma once
// Files that lie in memory and can be read, for fuzz targets. Everything that writes is refused.

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/env.h"

namespace strata::fuzz {

class MemoryEnv final : public Env {
 public:
  explicit MemoryEnv(std::map<std::string, std::string> files) : files_(std::move(files)) {}

  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenReadable(const std::string& path) override { return Find(path); }
  bool Exists(const std::string& path) override { return files_.contains(path); }

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenWritable(const std::string&, Open) override { return Refused(); }
  absl::Status MakeDirs(const std::string&) override { return Refused(); }
  absl::Status Rename(const std::string&, const std::string&) override { return Refused(); }
  absl::Status RemoveAll(const std::string&) override { return Refused(); }
  absl::Status SyncDir(const std::string&) override { return Refused(); }
  absl::StatusOr<std::vector<std::string>> List(const std::string&) override { return Refused(); }

 private:
  class File final : public ReadableFile {
   public:
    explicit File(std::string_view text) : bytes_(std::as_bytes(std::span(text))) {}
    int64_t size() const override { return std::ssize(bytes_); }
    absl::Status ReadAt(int64_t offset, std::span<std::byte> out) const override {
      if (offset < 0 || offset > size() || std::ssize(out) > size() - offset) return absl::DataLossError("short file");
      if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
      return absl::OkStatus();
    }

   private:
    std::span<const std::byte> bytes_;
  };

  absl::StatusOr<std::unique_ptr<File>> Find(const std::string& path) const {
    const auto it = files_.find(path);
    if (it == files_.end()) return absl::NotFoundError(absl::StrFormat("%s: no such file", path));
    return std::make_unique<File>(it->second);
  }
  static absl::Status Refused() { return absl::PermissionDeniedError("read-only"); }

  const std::map<std::string, std::string> files_;
};

}  // namespace strata::fuzz
