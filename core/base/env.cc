#include "core/base/env.h"

#include <filesystem>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {
namespace {

absl::Status WriteAndSync(Env& env, const std::string& path, std::string_view text) {
  ASSIGN_OR_RETURN(auto file, env.OpenWritable(path, Env::Open::kTruncate));
  RETURN_IF_ERROR(file->Append(std::as_bytes(std::span(text))));
  RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

}  // namespace

absl::StatusOr<std::string> ReadText(Env& env, const std::string& path, int64_t max_bytes) {
  ASSIGN_OR_RETURN(const auto file, env.OpenReadable(path));
  if (file->size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %d bytes, more than the %d allowed", path, file->size(), max_bytes));
  }
  std::string text(static_cast<size_t>(file->size()), '\0');
  RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(text))));
  return text;
}

absl::StatusOr<std::string> ReadUserFile(Env& env, const std::string& path) {
  ASSIGN_OR_RETURN(const auto file, env.OpenLinked(path));
  std::string text(static_cast<size_t>(file->size()), '\0');
  RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(text))));
  return text;
}

absl::Status WriteTextAtomically(Env& env, const std::string& path, std::string_view text) {
  const std::string temporary = path + ".tmp";
  absl::Status status = WriteAndSync(env, temporary, text);
  if (status.ok()) status = env.Rename(temporary, path);
  if (!status.ok()) {
    env.RemoveAll(temporary).IgnoreError();
    return status;
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return env.SyncDir(folder.empty() ? "." : folder);
}

}  // namespace strata
