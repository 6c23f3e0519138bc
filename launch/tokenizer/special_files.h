#pragma once
// The small files beside a tokenizer.json that say which of its tokens begin and end a text: tokenizer_config.json
// (bos_token, eos_token) and generation_config.json (eos_token_id: one or several).

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/env.h"

namespace strata {

inline constexpr std::string_view kTokenizerConfig = "tokenizer_config.json";
inline constexpr std::string_view kGenerationConfig = "generation_config.json";

struct SpecialFile {
  std::string name, text;  // the whole file
};

struct SpecialNames {
  std::optional<std::string> bos, eos;  // contents of tokens
  std::vector<int32_t> stop;            // ids at any of which generation ends
};

// Those of the two files that are in `folder`, of at most 16 MiB each.
absl::StatusOr<std::vector<SpecialFile>> ReadSpecialFiles(Env& env, const std::string& folder);
// What they say; other keys are left alone. InvalidArgument: no JSON, another type than expected.
absl::StatusOr<SpecialNames> ParseSpecialFiles(const std::vector<SpecialFile>& files);

}  // namespace strata
