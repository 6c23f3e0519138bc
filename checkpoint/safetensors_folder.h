#pragma once
// A model's tensors as Hugging Face keeps them: a folder with model.safetensors, or with model-00001-of-00003.safetensors, ...
// and model.safetensors.index.json, which says what is where.

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/safetensors.h"
#include "core/base/env.h"

namespace strata {

inline constexpr char kSafetensorsName[] = "model.safetensors";
inline constexpr char kSafetensorsIndex[] = "model.safetensors.index.json";
inline constexpr int64_t kMaxSafetensorsIndex = 64 << 20;  // bytes
inline constexpr int kMaxSafetensorsFiles = 99999;

// "model.safetensors", or "model-00002-of-00003.safetensors" with 1 <= 2 <= 3: the only names that are ever opened.
bool IsSafetensorsName(std::string_view name);
std::string ShardName(int index, int count);  // index from 1; count 1: "model.safetensors"

// The file of each tensor, by name. InvalidArgument unless the text is an index of files that IsSafetensorsName accepts.
absl::StatusOr<std::map<std::string, std::string>> ParseSafetensorsIndex(std::string_view text);

// Thread-safe: reading changes nothing.
class SafetensorsFolder {
 public:
  // Opens every file and checks every header; the index must name exactly the tensors that the files hold. No symbolic link
  // is followed. Errors: NotFound where there is neither file, InvalidArgument, Env's; all name the file.
  static absl::StatusOr<SafetensorsFolder> Open(Env& env, const std::string& folder);

  struct File {
    std::string name;
    SafetensorsFile file;
  };
  const std::vector<File>& files() const { return files_; }  // by name
  const StoredTensor* Find(std::string_view name) const;     // null: there is none
  std::vector<const StoredTensor*> tensors() const;          // by name

  // The box of `tensor` (one of this folder's) at `offset` of extent `size`, row-major, exactly its bytes.
  // Errors: InvalidArgument where it is not inside; Env's.
  absl::Status Read(const StoredTensor& tensor, const Shape& offset, const Shape& size, std::span<std::byte> out) const;

 private:
  std::string folder_;
  std::vector<File> files_;
  struct Place {
    int file;
    int tensor;
  };
  std::map<std::string, Place, std::less<>> index_;
};

}  // namespace strata
