#pragma once
// A model folder of Hugging Face transformers, opened: what it computes, and any box of any parameter.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/safetensors_folder.h"
#include "core/base/env.h"
#include "core/tensor/tensor.h"
#include "models/hf/config_json.h"
#include "models/hf/tensor_names.h"

namespace strata {

// Thread-safe: reading changes nothing. `env` must outlive it.
class HfModel {
 public:
  // Reads config.json and every header. Errors: NotFound; InvalidArgument, naming file, key or tensor, where one of them is
  // not known, is missing, has another shape than config.json says, or holds no floating-point numbers.
  static absl::StatusOr<HfModel> Open(Env& env, const std::string& folder);

  const ModelConfig& config() const { return config_.model; }
  StoredType type() const { return config_.type; }  // as config.json says; a tensor may be of another
  const HfNames& names() const { return names_; }
  const SafetensorsFolder& tensors() const { return tensors_; }
  const std::vector<const StoredTensor*>& unused() const { return unused_; }  // no parameter needs them
  StoredType TypeOf(std::string_view parameter) const;                        // of a parameter of names()

  // The box of a parameter (of names()) at `offset` of extent `size`, row-major, as `to`; see ConvertFloats. Reads no more
  // than that box. Errors: InvalidArgument where it is not inside; Env's.
  absl::Status Read(std::string_view parameter, const Shape& offset, const Shape& size, StoredType to,
                    std::span<std::byte> out) const;

 private:
  HfModel(HfConfig config, HfNames names, SafetensorsFolder tensors)
      : config_(std::move(config)), names_(std::move(names)), tensors_(std::move(tensors)) {}
  absl::Status CheckTensors();
  absl::Status CheckCopies() const;

  HfConfig config_;
  HfNames names_;
  SafetensorsFolder tensors_;
  std::vector<const StoredTensor*> unused_;
};

// [rows, columns] of elements of `element_bytes` as [columns, rows].
void TransposeElements(std::span<const std::byte> in, int64_t rows, int64_t columns, int64_t element_bytes,
                       std::span<std::byte> out);

}  // namespace strata
