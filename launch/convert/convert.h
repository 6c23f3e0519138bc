#pragma once
// `strata convert`: a Hugging Face model folder as a folder of ours, and back.

#include <string>

#include "absl/status/statusor.h"
#include "core/base/env.h"

namespace strata {

enum class Verification : uint8_t { kNo, kYes };

// From the model in `folder` to `out`, which must be empty or not there:
//   out/model.toml                           a config: fill in [data] to train on
//   out/checkpoints/step-0000000000/         the weights, in the widest type that the files hold (F16 becomes float32)
//   out/huggingface/                         kept_files.h
// kYes: reads everything back, compares every tensor bit for bit, and the losses that both have on fixed tokens.
// Returns what to print. Errors: of HfModel::Open; AlreadyExists; DataLoss where something differs.
absl::StatusOr<std::string> ImportHf(Env& env, const std::string& folder, const std::string& out, Verification verify);

// From a checkpoint (CheckpointWeights::Open) to a model folder `out`, which must be empty or not there. Where the run has
// kept the files of the model that it began with, in their form: as many files, the same names, order and types, each text as
// it was. Else as transformers writes such a model, in the checkpoint's own type.
absl::StatusOr<std::string> ExportHf(Env& env, const std::string& checkpoint, const std::string& out,
                                     Verification verify);

// What --verify prints: that every tensor of the model in `hf_folder` is, bit for bit, what the checkpoint's parameters give,
// and the loss that both have on fixed tokens. DataLoss, naming the tensor, where one differs.
absl::StatusOr<std::string> VerifyConversion(Env& env, const std::string& hf_folder, const std::string& checkpoint);

}  // namespace strata
