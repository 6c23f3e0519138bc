#pragma once
// config.json of Hugging Face transformers, as a ModelConfig, and back. Keys of transformers 4 (torch_dtype; rope_theta beside
// rope_scaling) and 5 (dtype; rope_parameters) are read. Pure functions.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "checkpoint/stored_type.h"
#include "models/model_config.h"

namespace strata {

inline constexpr char kHfConfigName[] = "config.json";
inline constexpr int64_t kMaxHfConfig = 1 << 20;  // bytes

inline constexpr char kHfScheme[] = "hf:";
// The folder that "hf:DIR" names; empty where `from` is something else.
std::string HfFolderOf(std::string_view from);

struct HfConfig {
  ModelConfig model;  // seq is max_position_embeddings; dropout, init_std and mask_token are our defaults
  StoredType type = StoredType::kF32;  // dtype or torch_dtype
};

// InvalidArgument, naming key and value, for an unknown model_type, rotary type, activation or number format, for a key that
// is not known and not empty, and for sizes that no model can have.
absl::StatusOr<HfConfig> ParseHfConfig(std::string_view text);

// A config.json that ParseHfConfig and both versions of transformers read as `model`.
std::string PrintHfConfig(const ModelConfig& model, StoredType type);

// Whether both describe the same function: equal but for what a job may choose (from, seq, dropout, init_std, mask_token).
// Else the first key that differs, "model.dim = 64, config.json says 32".
std::string DifferenceToHf(const ModelConfig& job, const ModelConfig& hf);

}  // namespace strata
