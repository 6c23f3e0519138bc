#include "checkpoint/writer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_format.h"
#include "checkpoint/internal/hdf5_layout.h"
#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "core/base/status.h"

namespace strata {
namespace {

absl::Status CheckBoxToSave(const TensorBox& box) {
  if (!IsTensorName(box.name)) {
    return absl::InvalidArgumentError(absl::StrFormat("not a tensor name: \"%s\"", box.name));
  }
  return Annotate(CheckBox(box.global, box.offset, box.size), box.name);
}

absl::Status AddToTensor(const TensorBox& box, int64_t offset_in_file, std::vector<TensorRecord>& tensors,
                         std::unordered_map<std::string, size_t>& index) {
  const auto [it, inserted] = index.try_emplace(box.name, tensors.size());
  if (inserted) tensors.push_back({box.name, box.dtype, box.global, {}});
  TensorRecord& tensor = tensors[it->second];
  if (tensor.dtype != box.dtype || tensor.global != box.global) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: two boxes differ in dtype or global shape", box.name));
  }
  tensor.boxes.push_back({box.offset, box.size, 0, offset_in_file});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ShardWriter> ShardWriter::Create(Env& env, const std::string& folder, int rank,
                                                std::vector<TensorBox> boxes) {
  if (rank < 0 || rank >= kMaxFiles) return absl::InvalidArgumentError(absl::StrFormat("rank %d", rank));
  std::vector<const TensorBox*> layout;
  for (const TensorBox& box : boxes) {
    RETURN_IF_ERROR(CheckBoxToSave(box));
    layout.push_back(&box);
  }
  ShardWriter writer(env, folder, DataFileName(rank));
  if (env.Exists(writer.path_)) return absl::AlreadyExistsError(absl::StrFormat("%s: already written", writer.path_));
  ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, internal::LayOutHdf5(writer.path_, layout));
  for (size_t i = 0; i < boxes.size(); ++i) {
    const int64_t bytes = boxes[i].size.elements() * SizeOf(boxes[i].dtype);
    writer.boxes_.push_back({std::move(boxes[i]), offsets[i], bytes});
  }
  ASSIGN_OR_RETURN(writer.file_, env.OpenWritable(writer.path_, Env::Open::kExisting));
  return writer;
}

absl::Status ShardWriter::Append(size_t box, std::span<const std::byte> bytes) {
  Box& b = boxes_[box];
  STRATA_CHECK(std::ssize(bytes) <= b.bytes - b.written);
  RETURN_IF_ERROR(file_->WriteAt(b.offset_in_file + b.written, bytes));
  b.crc32c = Crc32c(bytes, b.crc32c);
  b.written += std::ssize(bytes);
  return absl::OkStatus();
}

// Checksums of the file's blocks as they read back, HDF5's own bytes included; those of the boxes must be what they were.
absl::StatusOr<FileRecord> ShardWriter::ReadBack() const {
  std::vector<const Box*> boxes;
  for (const Box& box : boxes_) boxes.push_back(&box);
  std::sort(boxes.begin(), boxes.end(), [](auto* a, auto* b) { return a->offset_in_file < b->offset_in_file; });
  ASSIGN_OR_RETURN(const auto file, env_->OpenReadable(path_));
  FileRecord record{name_, file->size(), 0, {}};
  std::vector<std::byte> buffer(std::min(kBlockBytes, record.bytes));
  auto box = boxes.begin();  // the first that has not come to its end
  uint32_t crc = 0;          // of its bytes so far
  for (int64_t begin = 0; begin < record.bytes; begin += kBlockBytes) {
    const std::span block(buffer.data(), std::min(kBlockBytes, record.bytes - begin));
    RETURN_IF_ERROR(file->ReadAt(begin, block));
    const int64_t end = begin + std::ssize(block);
    for (; box != boxes.end() && (*box)->offset_in_file < end; ++box, crc = 0) {
      const int64_t from = std::max(begin, (*box)->offset_in_file), box_end = (*box)->offset_in_file + (*box)->bytes;
      crc = Crc32c(block.subspan(from - begin, std::min(end, box_end) - from), crc);
      if (box_end > end) break;
      if (crc == (*box)->crc32c) continue;
      return absl::DataLossError(absl::StrFormat("%s: %s%s reads back other than written", path_, (*box)->name,
                                                 BoxName((*box)->offset, (*box)->size)));
    }
    record.block_crc32c.push_back(Crc32c(block));
    record.crc32c = Crc32cCombine(record.crc32c, record.block_crc32c.back(), std::ssize(block));
  }
  if (box != boxes.end()) return absl::DataLossError(absl::StrFormat("%s: ends before its last tensor", path_));
  return record;
}

absl::StatusOr<ShardRecord> ShardWriter::Finish() {
  ShardRecord record;
  std::unordered_map<std::string, size_t> index;
  for (const Box& box : boxes_) {
    STRATA_CHECK(box.written == box.bytes);
    RETURN_IF_ERROR(AddToTensor(box, box.offset_in_file, record.tensors, index));
  }
  RETURN_IF_ERROR(file_->Sync());
  RETURN_IF_ERROR(file_->Close());
  ASSIGN_OR_RETURN(record.file, ReadBack());
  return record;
}

absl::StatusOr<ShardRecord> WriteShard(Env& env, const std::string& folder, int rank, std::span<const SavedBox> boxes) {
  for (const SavedBox& box : boxes) {
    if (box.data == nullptr) return absl::InvalidArgumentError(absl::StrFormat("%s: no data", box.name));
  }
  ASSIGN_OR_RETURN(ShardWriter writer, ShardWriter::Create(env, folder, rank, {boxes.begin(), boxes.end()}));
  for (size_t i = 0; i < boxes.size(); ++i) {
    const auto bytes = static_cast<size_t>(boxes[i].size.elements() * SizeOf(boxes[i].dtype));
    RETURN_IF_ERROR(writer.Append(i, {boxes[i].data, bytes}));
  }
  return writer.Finish();
}

}  // namespace strata
