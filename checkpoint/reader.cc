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

const TensorRecord* CheckpointReader::Find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : it->second;
}

absl::Status CheckpointReader::CheckWanted(const TensorBox& want, int64_t out_bytes) const {
  const TensorRecord* found = Find(want.name);
  if (found == nullptr) return absl::NotFoundError(absl::StrFormat("%s: no tensor %s", dir_, want.name));
  const TensorRecord& tensor = *found;
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
  for (const StoredBox& box : Find(want.name)->boxes) {
    const auto copy = [&](int64_t from, int64_t to, int64_t bytes) {
      return ReadBytes(box.file, box.byte_offset + from, out.subspan(to, bytes));
    };
    RETURN_IF_ERROR(
        Annotate(ForEachRun(box.offset, box.size, want.offset, want.size, SizeOf(want.dtype), copy), want.name));
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::ReadSlabs(const TensorBox& want, SlabFn fn) {
  const int64_t count = want.size.elements(), most = kBlockBytes / SizeOf(want.dtype);
  std::vector<std::byte> slab;
  for (int64_t first = 0; first < count; first += most) {
    absl::Status status;
    ForEachBoxOfRange(want.size, first, std::min(most, count - first), [&](const Shape& offset, const Shape& size) {
      TensorBox part = want;
      part.size = size;
      for (int d = 0; d < size.rank; ++d) part.offset[d] += offset[d];
      slab.resize(size.elements() * SizeOf(want.dtype));
      if (status.ok()) status = Read(part, slab);
      if (status.ok()) status = fn(slab);
    });
    RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::ReadBytes(int file, int64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    ASSIGN_OR_RETURN(const std::span<const std::byte> block, Block(file, offset / kBlockBytes));
    const int64_t begin = offset % kBlockBytes, n = std::min(std::ssize(out), std::ssize(block) - begin);
    std::memcpy(out.data(), block.data() + begin, n);
    out = out.subspan(n);
    offset += n;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::span<const std::byte>> CheckpointReader::Block(int file, int64_t index) {
  ++uses_;
  for (CachedBlock& block : cache_) {
    if (block.file != file || block.index != index) continue;
    block.used = uses_;
    return std::span<const std::byte>(block.bytes);
  }
  if (!files_[file]) {
    ASSIGN_OR_RETURN(files_[file], internal::BlockFile::Open(*env_, dir_, manifest_->files[file]));
  }
  if (cache_.size() < kCachedBlocks) cache_.emplace_back();
  CachedBlock& oldest =
      *std::min_element(cache_.begin(), cache_.end(), [](auto& a, auto& b) { return a.used < b.used; });
  oldest.file = -1;  // until it is read
  oldest.used = 0;
  RETURN_IF_ERROR(files_[file]->ReadBlock(index, oldest.bytes));
  oldest.file = file;
  oldest.index = index;
  oldest.used = uses_;
  return std::span<const std::byte>(oldest.bytes);
}

}  // namespace strata
