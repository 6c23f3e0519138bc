#include "checkpoint/reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {

absl::StatusOr<CheckpointReader> CheckpointReader::Open(Env& env, const std::string& dir) {
  const std::string path = dir + "/" + kManifestName;
  ASSIGN_OR_RETURN(const std::string text, ReadText(env, path, kMaxManifestBytes));
  absl::StatusOr<Manifest> manifest = ParseManifest(text);
  if (!manifest.ok()) return Annotate(manifest.status(), path);
  return CheckpointReader(env, dir, *std::move(manifest));
}

CheckpointReader::CheckpointReader(Env& env, std::string dir, Manifest manifest)
    : env_(&env),
      dir_(std::move(dir)),
      manifest_(std::make_unique<const Manifest>(std::move(manifest))),
      files_(manifest_->files.size()) {
  for (const TensorRecord& tensor : manifest_->tensors) index_.emplace(tensor.name, &tensor);
}

absl::Status CheckpointReader::CheckWanted(const TensorBox& want, int64_t out_bytes) const {
  const auto it = index_.find(want.name);
  if (it == index_.end()) return absl::NotFoundError(absl::StrFormat("%s: no tensor %s", dir_, want.name));
  const TensorRecord& tensor = *it->second;
  if (tensor.dtype != want.dtype || tensor.global != want.global) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: %s is %s%s there, not %s%s", dir_, want.name,
                                                      Name(tensor.dtype), ToString(tensor.global), Name(want.dtype),
                                                      ToString(want.global)));
  }
  RETURN_IF_ERROR(Annotate(CheckBox(want.global, want.offset, want.size), want.name));
  const int64_t want_bytes = want.size.elements() * SizeOf(want.dtype);
  if (out_bytes == want_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%s%s: %d bytes to read into a buffer of %d", want.name,
                                                    BoxName(want.offset, want.size), want_bytes, out_bytes));
}

absl::Status CheckpointReader::Read(const TensorBox& want, std::span<std::byte> out) {
  RETURN_IF_ERROR(CheckWanted(want, std::ssize(out)));
  for (const StoredBox& box : index_.at(want.name)->boxes) {
    const auto copy = [&](int64_t from, int64_t to, int64_t bytes) {
      return ReadBytes(box.file, box.byte_offset + from, out.subspan(to, bytes));
    };
    RETURN_IF_ERROR(
        Annotate(ForEachRun(box.offset, box.size, want.offset, want.size, SizeOf(want.dtype), copy), want.name));
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::ReadBytes(int file, int64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    RETURN_IF_ERROR(LoadBlock(file, offset / kBlockBytes));
    const int64_t begin = offset % kBlockBytes, n = std::min(std::ssize(out), std::ssize(block_) - begin);
    std::memcpy(out.data(), block_.data() + begin, n);
    out = out.subspan(n);
    offset += n;
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::LoadBlock(int file, int64_t index) {
  if (file == block_file_ && index == block_index_) return absl::OkStatus();
  if (!files_[file]) {
    ASSIGN_OR_RETURN(files_[file], internal::BlockFile::Open(*env_, dir_, manifest_->files[file]));
  }
  block_file_ = -1;
  RETURN_IF_ERROR(files_[file]->ReadBlock(index, block_));
  block_file_ = file;
  block_index_ = index;
  return absl::OkStatus();
}

}  // namespace strata
