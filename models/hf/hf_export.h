#pragma once
// The tensors of a Hugging Face model folder, made of our parameters.

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "checkpoint/safetensors.h"
#include "models/hf/tensor_names.h"

namespace strata {

// A whole parameter, row-major, as `type`.
using ReadParameter =
    absl::FunctionRef<absl::Status(const std::string& parameter, StoredType type, std::span<std::byte> out)>;

// The bytes of one of their tensors. Errors: of `read`.
absl::Status FillHfTensor(const HfTensor& tensor, StoredType type, ReadParameter read, std::span<std::byte> out);

// How transformers lays such a model out: files of at most `max_file_bytes` each (a tensor that is larger has its own), in the
// order of the parameters, and the text of the index where they are several.
struct HfLayout {
  struct File {
    std::string name;
    SafetensorsHeader header;
  };
  std::vector<File> files;
  std::string index;  // empty: one file
};
inline constexpr int64_t kHfFileBytes = 5'000'000'000;
HfLayout LayOutHf(const HfNames& names, const std::function<StoredType(const HfTensor&)>& type,
                  int64_t max_file_bytes = kHfFileBytes);

}  // namespace strata
