#include "tests/testing/fault_env.h"

#include <utility>

#include "core/base/status.h"

namespace strata::testing {

class FaultEnv::Writable : public WritableFile {
 public:
  Writable(FaultEnv& env, std::string path, std::unique_ptr<WritableFile> file)
      : env_(env), path_(std::move(path)), file_(std::move(file)) {}

  absl::Status WriteAt(int64_t offset, std::span<const std::byte> bytes) override {
    absl::Status fault = env_.hook_("write", path_);
    if (fault.ok()) return file_->WriteAt(offset, MaybeFlipped(bytes));
    if (env_.short_writes_) fault.Update(file_->WriteAt(offset, bytes.first(bytes.size() / 2)));
    return fault;
  }
  absl::Status Append(std::span<const std::byte> bytes) override {
    absl::Status fault = env_.hook_("write", path_);
    if (fault.ok()) return file_->Append(MaybeFlipped(bytes));
    if (env_.short_writes_) fault.Update(file_->Append(bytes.first(bytes.size() / 2)));
    return fault;
  }
  absl::Status Sync() override { return env_.hook_("sync", path_); }
  absl::Status Close() override {
    RETURN_IF_ERROR(env_.hook_("close", path_));
    return file_->Close();
  }

 private:
  std::span<const std::byte> MaybeFlipped(std::span<const std::byte> bytes) {
    if (!env_.flip_.exchange(false) || bytes.empty()) return bytes;
    copy_.assign(bytes.begin(), bytes.end());
    copy_[copy_.size() / 2] ^= std::byte{0x10};
    return copy_;
  }

  FaultEnv& env_;
  const std::string path_;
  std::unique_ptr<WritableFile> file_;
  std::vector<std::byte> copy_;
};

class FaultEnv::Readable : public ReadableFile {
 public:
  Readable(FaultEnv& env, std::string path, std::unique_ptr<ReadableFile> file)
      : env_(env), path_(std::move(path)), file_(std::move(file)) {}

  int64_t size() const override { return file_->size(); }
  absl::Status ReadAt(int64_t offset, std::span<std::byte> bytes) const override {
    RETURN_IF_ERROR(env_.hook_("read", path_));
    return file_->ReadAt(offset, bytes);
  }

 private:
  FaultEnv& env_;
  const std::string path_;
  std::unique_ptr<ReadableFile> file_;
};

absl::StatusOr<std::unique_ptr<WritableFile>> FaultEnv::OpenWritable(const std::string& path, Open mode) {
  RETURN_IF_ERROR(hook_("create", path));
  ASSIGN_OR_RETURN(auto file, base_.OpenWritable(path, mode));
  return std::make_unique<Writable>(*this, path, std::move(file));
}

absl::StatusOr<std::unique_ptr<ReadableFile>> FaultEnv::OpenReadable(const std::string& path) {
  RETURN_IF_ERROR(hook_("open", path));
  ASSIGN_OR_RETURN(auto file, base_.OpenReadable(path));
  return std::make_unique<Readable>(*this, path, std::move(file));
}

absl::Status FaultEnv::MakeDirs(const std::string& path) {
  RETURN_IF_ERROR(hook_("mkdir", path));
  return base_.MakeDirs(path);
}

absl::Status FaultEnv::Rename(const std::string& from, const std::string& to) {
  RETURN_IF_ERROR(hook_("rename", to));
  return base_.Rename(from, to);
}

absl::Status FaultEnv::RemoveAll(const std::string& path) {
  RETURN_IF_ERROR(hook_("remove", path));
  return base_.RemoveAll(path);
}

absl::Status FaultEnv::SyncDir(const std::string& path) { return hook_("syncdir", path); }

absl::StatusOr<std::vector<std::string>> FaultEnv::List(const std::string& path) {
  RETURN_IF_ERROR(hook_("list", path));
  return base_.List(path);
}

}  // namespace strata::testing
