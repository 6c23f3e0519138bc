#include "checkpoint/manifest.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>
#include <unordered_map>

#include "absl/strings/str_format.h"
#include "core/base/crc32c.h"
#include "core/base/status.h"

namespace strata {
namespace {

template <typename... Args>
absl::Status Invalid(const absl::FormatSpec<Args...>& format, const Args&... args) {
  return absl::InvalidArgumentError(absl::StrFormat(format, args...));
}

bool IsDataFileName(std::string_view name) {
  constexpr std::string_view kPattern = "data-#####.h5";
  return std::equal(name.begin(), name.end(), kPattern.begin(), kPattern.end(),
                    [](char c, char p) { return p == '#' ? c >= '0' && c <= '9' : c == p; });
}

absl::Status CheckFile(const FileRecord& file) {
  if (!IsDataFileName(file.name)) return Invalid("file name is not of the form data-00000.h5: \"%s\"", file.name);
  if (file.bytes < 0 || file.bytes > kMaxFileBytes) return Invalid("%s: %d bytes", file.name, file.bytes);
  const auto num_blocks = static_cast<int64_t>(file.block_crc32c.size());
  if (num_blocks != NumBlocks(file.bytes)) {
    return Invalid("%s: %d block checksums for %d bytes", file.name, num_blocks, file.bytes);
  }
  uint32_t crc = 0;
  for (int64_t i = 0; i < num_blocks; ++i) {
    crc = Crc32cCombine(crc, file.block_crc32c[i], std::min(kBlockBytes, file.bytes - i * kBlockBytes));
  }
  if (crc != file.crc32c) return Invalid("%s: block checksums do not add up to the file's", file.name);
  return absl::OkStatus();
}

absl::Status CheckBoxes(const TensorRecord& tensor, const std::vector<FileRecord>& files) {
  if (!IsTensorName(tensor.name)) return Invalid("not a tensor name: \"%s\"", tensor.name);
  if (tensor.boxes.size() > kMaxBoxesPerTensor) {
    return Invalid("%s: %d boxes, more than %d", tensor.name, tensor.boxes.size(), kMaxBoxesPerTensor);
  }
  for (const StoredBox& box : tensor.boxes) {
    if (const absl::Status s = CheckBox(tensor.global, box.offset, box.size); !s.ok()) return Annotate(s, tensor.name);
    if (box.file < 0 || box.file >= static_cast<int>(files.size())) {
      return Invalid("%s: a box in file %d of %d", tensor.name, box.file, files.size());
    }
    const FileRecord& file = files[box.file];
    if (box.byte_offset < 0 || box.byte_offset > file.bytes ||
        BytesOf(box, tensor.dtype) > file.bytes - box.byte_offset) {
      return Invalid("%s%s: its bytes from %d on are not inside %s of %d bytes", tensor.name,
                     BoxName(box.offset, box.size), box.byte_offset, file.name, file.bytes);
    }
  }
  return absl::OkStatus();
}

// Boxes inside the tensor tile it if no two overlap and their sizes add up. Sorted by the first dim, only neighbours that
// share a part of it are compared.
absl::Status CheckTiling(const TensorRecord& tensor, const std::vector<FileRecord>& files) {
  std::vector<const StoredBox*> boxes;
  for (const StoredBox& box : tensor.boxes) boxes.push_back(&box);
  std::sort(boxes.begin(), boxes.end(), [](auto* a, auto* b) { return a->offset.dim[0] < b->offset.dim[0]; });
  int64_t covered = 0;
  for (size_t i = 0; i < boxes.size(); ++i) {
    const StoredBox& a = *boxes[i];
    for (size_t j = i + 1; j < boxes.size(); ++j) {
      const StoredBox& b = *boxes[j];
      if (tensor.global.rank > 0 && b.offset[0] >= a.offset[0] + a.size[0]) break;
      if (BoxesOverlap(a.offset, a.size, b.offset, b.size)) {
        return Invalid("%s: box %s of %s and box %s of %s overlap", tensor.name, BoxName(a.offset, a.size),
                       files[a.file].name, BoxName(b.offset, b.size), files[b.file].name);
      }
    }
    covered += a.size.elements();
  }
  if (covered == tensor.global.elements()) return absl::OkStatus();
  return Invalid("%s: its boxes cover %d of %d elements", tensor.name, covered, tensor.global.elements());
}

absl::Status CheckDisjointBytes(const Manifest& manifest) {
  struct Range {
    int file;
    int64_t begin, end;
    const std::string* tensor;
  };
  std::vector<Range> ranges;
  for (const TensorRecord& tensor : manifest.tensors) {
    for (const StoredBox& box : tensor.boxes) {
      ranges.push_back({box.file, box.byte_offset, box.byte_offset + BytesOf(box, tensor.dtype), &tensor.name});
    }
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return std::tie(a.file, a.begin) < std::tie(b.file, b.begin); });
  for (size_t i = 1; i < ranges.size(); ++i) {
    const Range &a = ranges[i - 1], &b = ranges[i];
    if (a.file == b.file && b.begin < a.end) {
      return Invalid("%s and %s share bytes of %s", *a.tensor, *b.tensor, manifest.files[a.file].name);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string DataFileName(int rank) { return absl::StrFormat("data-%05d.h5", rank); }

bool IsTensorName(std::string_view name) {
  return !name.empty() && name.size() <= 255 &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~' && c != '/'; });
}

int64_t NumBlocks(int64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes; }

int64_t BytesOf(const StoredBox& box, DType dtype) { return box.size.elements() * SizeOf(dtype); }

absl::StatusOr<Manifest> MergeShards(int64_t step, const CheckpointMeta& meta, const std::vector<ShardRecord>& shards) {
  Manifest manifest{step, meta, {}, {}};
  std::unordered_map<std::string, size_t> index;
  for (const ShardRecord& shard : shards) {
    const int file = static_cast<int>(manifest.files.size());
    manifest.files.push_back(shard.file);
    for (const TensorRecord& part : shard.tensors) {
      const auto [it, inserted] = index.try_emplace(part.name, manifest.tensors.size());
      if (inserted) manifest.tensors.push_back({part.name, part.dtype, part.global, {}});
      TensorRecord& tensor = manifest.tensors[it->second];
      if (tensor.dtype != part.dtype || tensor.global != part.global) {
        return Invalid("%s: %s%s in %s, but %s%s before", part.name, Name(part.dtype), ToString(part.global),
                       shard.file.name, Name(tensor.dtype), ToString(tensor.global));
      }
      for (StoredBox box : part.boxes) {
        box.file = file;
        tensor.boxes.push_back(box);
      }
    }
  }
  return manifest;
}

absl::Status Validate(const Manifest& manifest) {
  std::set<std::string_view> names;
  for (const FileRecord& file : manifest.files) {
    RETURN_IF_ERROR(CheckFile(file));
    if (!names.insert(file.name).second) return Invalid("%s is listed twice", file.name);
  }
  names.clear();
  for (const TensorRecord& tensor : manifest.tensors) {
    if (!names.insert(tensor.name).second) return Invalid("%s is listed twice", tensor.name);
    if (!CheckedElements(tensor.global)) {
      return Invalid("%s: shape %s is empty or too large", tensor.name, ToString(tensor.global));
    }
    RETURN_IF_ERROR(CheckBoxes(tensor, manifest.files));
    RETURN_IF_ERROR(CheckTiling(tensor, manifest.files));
  }
  return CheckDisjointBytes(manifest);
}

}  // namespace strata
