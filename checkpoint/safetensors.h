#pragma once
// One safetensors file: eight bytes that hold N (little-endian), N bytes of JSON, then the tensors' bytes back to back:
//   {"__metadata__":{"format":"pt"},"lm_head.weight":{"dtype":"F32","shape":[99,32],"data_offsets":[0,12672]}, ...}
// Source: the description of the format in the README of huggingface/safetensors. What comes from outside is bounded and
// checked before it is used: no code runs, nothing is allocated by a number that the file's size does not bear out.
// A header is printed as the safetensors library prints it, so that a file that it wrote is written again byte for byte.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "checkpoint/stored_type.h"
#include "core/base/env.h"
#include "core/tensor/tensor.h"

namespace strata {

inline constexpr int64_t kMaxSafetensorsHeader = 100'000'000;  // bytes; the library's own cap
inline constexpr int kMaxStoredTensors = 1 << 20;              // of a file

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  Shape shape;
  int64_t offset = 0;  // of its first byte, from the end of the header

  int64_t bytes() const { return shape.elements() * SizeOf(type); }
};

struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;                          // in the order of their bytes
  std::vector<std::pair<std::string, std::string>> metadata;  // by key

  int64_t data_bytes() const { return tensors.empty() ? 0 : tensors.back().offset + tensors.back().bytes(); }
};

// InvalidArgument, naming the tensor, unless the text is a header whose tensors lie one behind the other from byte 0 on, none
// empty, of at most kMaxRank dims and types of whole bytes.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text);

// Sorts `tensors` as the library does (larger types first, then by name) and sets their offsets.
void LayOutSafetensors(std::vector<StoredTensor>& tensors);
// The text of a header, with spaces at its end to a multiple of 8.
std::string PrintSafetensorsHeader(const SafetensorsHeader& header);

// Thread-safe.
class SafetensorsFile {
 public:
  // Reads and checks the header; follows no symbolic link. Errors: Env's, InvalidArgument; all name the path.
  static absl::StatusOr<SafetensorsFile> Open(Env& env, const std::string& path);

  const SafetensorsHeader& header() const { return header_; }
  const std::string& header_text() const { return text_; }  // as it is in the file
  // Bytes [offset, offset + out.size()) after the header. DataLoss if the file has become shorter.
  absl::Status Read(int64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_, text_;
  SafetensorsHeader header_;
  std::unique_ptr<ReadableFile> file_;
};

// Writes `path` under another name, syncs and renames it: there is the whole file or none. `header_text` must parse to
// `header`. `fill` is called for each tensor in turn, with its bytes to set; its first error ends the writing.
using FillStored = absl::FunctionRef<absl::Status(const StoredTensor&, std::span<std::byte>)>;
absl::Status WriteSafetensors(Env& env, const std::string& path, const SafetensorsHeader& header,
                              const std::string& header_text, FillStored fill);

}  // namespace strata
