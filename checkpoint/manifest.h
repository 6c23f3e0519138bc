#pragma once
// What a checkpoint holds and where: the content of manifest.json. Values; nothing here touches a file.
// The text is one JSON object that opens with the CRC32C of the whole text (its own eight digits counted as zeros), so a
// flipped byte anywhere in it is found before the JSON is parsed. Numbers are bytes or elements.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/box.h"

namespace strata {

inline constexpr int kCheckpointVersion = 1;
inline constexpr int64_t kBlockBytes = int64_t{4} << 20;          // a CRC32C each
inline constexpr int64_t kMaxManifestBytes = int64_t{256} << 20;  // caps on what is read
inline constexpr int64_t kMaxFileBytes = int64_t{1} << 50;
inline constexpr int kMaxBoxesPerTensor = 16384;
inline constexpr int kMaxJsonDepth = 8;

// The state of a job beside its tensors.
struct CheckpointMeta {
  std::string mesh;         // as printed, "dp=2 tp=2"
  int64_t next_sample = 0;  // data cursor: index of the first sample that was not trained on
  uint64_t seed = 0;        // of random numbers, which are counter-based: there is no other state
  std::string config;       // the job's file, as text (UTF-8)
};

struct FileRecord {
  std::string name;  // "data-00003.h5"
  int64_t bytes = 0;
  uint32_t crc32c = 0;                 // of the whole file
  std::vector<uint32_t> block_crc32c;  // of each block of kBlockBytes; the last one may be shorter
};

struct StoredBox {
  Shape offset, size;
  int file = 0;             // index in files
  int64_t byte_offset = 0;  // in that file
};

struct TensorRecord {
  std::string name;
  DType dtype = DType::kF32;
  Shape global;
  std::vector<StoredBox> boxes;
};

// What one rank wrote: its file, and its boxes in it (file index 0).
struct ShardRecord {
  FileRecord file;
  std::vector<TensorRecord> tensors;
};

struct Manifest {
  int64_t step = 0;
  CheckpointMeta meta;
  std::vector<FileRecord> files;
  std::vector<TensorRecord> tensors;
};

std::string DataFileName(int rank);  // "data-00003.h5"; rank in [0, kMaxFiles)
inline constexpr int kMaxFiles = 100000;

// 1 to 255 printable ASCII characters, no space and no '/' (HDF5's separator).
bool IsTensorName(std::string_view name);

int64_t NumBlocks(int64_t bytes);
int64_t BytesOf(const StoredBox& box, DType dtype);

// The records of all ranks as one manifest. InvalidArgument where ranks disagree about a tensor's dtype or shape.
absl::StatusOr<Manifest> MergeShards(int64_t step, const CheckpointMeta& meta, const std::vector<ShardRecord>& shards);

// InvalidArgument, naming the tensor or file, unless file names are DataFileName's, every box lies in its tensor and its
// file, the boxes of a tensor cover it exactly once, and no two boxes share a byte.
absl::Status Validate(const Manifest& manifest);

// Text and back. Parsing accepts only what Validate accepts; DataLoss for a failed checksum, else InvalidArgument.
std::string ToJson(const Manifest& manifest);
std::string ToJson(const ShardRecord& shard);
absl::StatusOr<Manifest> ParseManifest(std::string_view text);
absl::StatusOr<ShardRecord> ParseShardRecord(std::string_view text);

}  // namespace strata
