#pragma once
// The parameters of a checkpoint as whole tensors of any floating-point type, and a model's loss with such parameters.

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "checkpoint/reader.h"
#include "checkpoint/stored_type.h"
#include "core/base/env.h"
#include "models/model_config.h"

namespace strata {

// Not thread-safe, as its reader is not.
class CheckpointWeights {
 public:
  // `path`: a checkpoint, a folder of checkpoints, or the folder of a run; of several the newest valid one.
  static absl::StatusOr<CheckpointWeights> Open(Env& env, const std::string& path);

  const std::string& path() const { return path_; }  // of the checkpoint
  std::string RunFolder() const;                     // that holds checkpoints/step-N
  const CheckpointReader& reader() const { return reader_; }
  const TensorRecord* Find(std::string_view tensor) const;  // null: none

  // A whole parameter, row-major. Where it has master weights and `type` holds more than the parameter does, the master
  // weights. Errors: NotFound, DataLoss.
  absl::Status Read(const std::string& parameter, StoredType type, std::span<std::byte> out);

 private:
  CheckpointWeights(std::string path, CheckpointReader reader) : path_(std::move(path)), reader_(std::move(reader)) {}

  std::string path_;
  CheckpointReader reader_;
};

// The loss, nats a token, of a few fixed rows of tokens, in float32 on the CPU; `read` gives whole parameters.
absl::StatusOr<double> LossOnFixedTokens(
    const ModelConfig& model,
    absl::FunctionRef<absl::Status(const std::string& parameter, StoredType type, std::span<std::byte> out)> read);

}  // namespace strata
