#pragma once
// Hugging Face's tokenizer.json, of byte-level byte-pair encodings: GPT-2, Llama 3, Qwen and their like. What it may hold:
// docs/tokenizers.md. Anything else is refused, with its path in the file.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "launch/tokenizer/added_tokens.h"
#include "launch/tokenizer/bpe.h"
#include "launch/tokenizer/normalizer.h"
#include "launch/tokenizer/pre_tokenizer.h"

namespace strata {

struct TokenizerJson {
  std::vector<NormalForm> normalizers;  // in order
  PreTokenizer pre_tokenizer;
  BpeModel::Options model;
  std::vector<AddedToken> added;
  std::vector<std::string> texts;       // by id: what it adds to a decoded text; "": no such id
  std::vector<int32_t> prefix, suffix;  // what the post-processor puts around the ids of a text
};

// Caps: 256 MiB of text, nesting of 32, 2^22 pieces and as many merges, ids that leave at most 2^16 holes, 2^18 added
// tokens, 32 steps of a pre-tokenizer. InvalidArgument: beyond a cap, no JSON, or something that is not supported.
absl::StatusOr<TokenizerJson> ParseTokenizerJson(std::string_view text);
inline constexpr int64_t kMaxTokenizerJsonBytes = int64_t{256} << 20;

}  // namespace strata
