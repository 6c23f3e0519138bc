#include "checkpoint/writer.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "checkpoint/internal/hdf5_layout.h"
#include "core/base/crc32c.h"
#include "core/base/status.h"

namespace strata {
namespace {

// Bytes that must be in the file, from memory.
struct Piece {
  int64_t offset;
  std::span<const std::byte> bytes;
};

absl::Status CheckSavedBox(const SavedBox& box) {
  if (!IsTensorName(box.name)) {
    return absl::InvalidArgumentError(absl::StrFormat("not a tensor name: \"%s\"", box.name));
  }
  if (box.data == nullptr) return absl::InvalidArgumentError(absl::StrFormat("%s: no data", box.name));
  return Annotate(CheckBox(box.global, box.offset, box.size), box.name);
}

absl::Status WritePieces(Env& env, const std::string& path, std::span<const Piece> pieces) {
  ASSIGN_OR_RETURN(const auto file, env.OpenWritable(path, Env::Open::kExisting));
  for (const Piece& piece : pieces) RETURN_IF_ERROR(file->WriteAt(piece.offset, piece.bytes));
  RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

// Whether `block`, which begins at file offset `begin`, holds the pieces' bytes where they meet it. Pieces are in rising order.
bool HoldsPieces(std::span<const std::byte> block, int64_t begin, std::span<const Piece> pieces) {
  const int64_t end = begin + static_cast<int64_t>(block.size());
  const auto ends_before = [](const Piece& p, int64_t at) { return p.offset + std::ssize(p.bytes) <= at; };
  for (auto p = std::lower_bound(pieces.begin(), pieces.end(), begin, ends_before);
       p != pieces.end() && p->offset < end; ++p) {
    const int64_t from = std::max(begin, p->offset), to = std::min(end, p->offset + std::ssize(p->bytes));
    if (std::memcmp(block.data() + (from - begin), p->bytes.data() + (from - p->offset), to - from) != 0) return false;
  }
  return true;
}

// Checksums of the file as it reads back, HDF5's own bytes included.
absl::StatusOr<FileRecord> ReadBack(Env& env, const std::string& path, std::string name,
                                    std::span<const Piece> pieces) {
  ASSIGN_OR_RETURN(const auto file, env.OpenReadable(path));
  FileRecord record{std::move(name), file->size(), 0, {}};
  std::vector<std::byte> buffer(std::min(kBlockBytes, record.bytes));
  for (int64_t begin = 0; begin < record.bytes; begin += kBlockBytes) {
    const std::span block(buffer.data(), std::min(kBlockBytes, record.bytes - begin));
    RETURN_IF_ERROR(file->ReadAt(begin, block));
    if (!HoldsPieces(block, begin, pieces)) {
      return absl::DataLossError(
          absl::StrFormat("%s: bytes %d..%d read back other than written", path, begin, begin + std::ssize(block) - 1));
    }
    record.block_crc32c.push_back(Crc32c(block));
    record.crc32c = Crc32cCombine(record.crc32c, record.block_crc32c.back(), std::ssize(block));
  }
  return record;
}

absl::StatusOr<std::vector<TensorRecord>> GroupByTensor(std::span<const SavedBox> boxes,
                                                        std::span<const int64_t> offsets) {
  std::vector<TensorRecord> tensors;
  std::unordered_map<std::string, size_t> index;
  for (size_t i = 0; i < boxes.size(); ++i) {
    const SavedBox& box = boxes[i];
    const auto [it, inserted] = index.try_emplace(box.name, tensors.size());
    if (inserted) tensors.push_back({box.name, box.dtype, box.global, {}});
    TensorRecord& tensor = tensors[it->second];
    if (tensor.dtype != box.dtype || tensor.global != box.global) {
      return absl::InvalidArgumentError(absl::StrFormat("%s: two boxes differ in dtype or global shape", box.name));
    }
    tensor.boxes.push_back({box.offset, box.size, 0, offsets[i]});
  }
  return tensors;
}

}  // namespace

absl::StatusOr<ShardRecord> WriteShard(Env& env, const std::string& tmp_dir, int rank,
                                       std::span<const SavedBox> boxes) {
  if (rank < 0 || rank >= kMaxFiles) return absl::InvalidArgumentError(absl::StrFormat("rank %d", rank));
  std::vector<const TensorBox*> layout;
  for (const SavedBox& box : boxes) {
    RETURN_IF_ERROR(CheckSavedBox(box));
    layout.push_back(&box);
  }
  const std::string name = DataFileName(rank), path = tmp_dir + "/" + name;
  if (env.Exists(path)) return absl::AlreadyExistsError(absl::StrFormat("%s: already written", path));
  ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, internal::LayOutHdf5(path, layout));
  ASSIGN_OR_RETURN(std::vector<TensorRecord> tensors, GroupByTensor(boxes, offsets));
  std::vector<Piece> pieces;
  for (size_t i = 0; i < boxes.size(); ++i) {
    const auto bytes = static_cast<size_t>(boxes[i].size.elements() * SizeOf(boxes[i].dtype));
    pieces.push_back({offsets[i], std::span(boxes[i].data, bytes)});
  }
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.offset < b.offset; });
  RETURN_IF_ERROR(WritePieces(env, path, pieces));
  ASSIGN_OR_RETURN(FileRecord file, ReadBack(env, path, name, pieces));
  return ShardRecord{std::move(file), std::move(tensors)};
}

}  // namespace strata
