#pragma once
// A small tokenizer.json: a piece for each byte (ids 0 to 255), a few merges, a special token behind them.

#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/env.h"
#include "launch/tokenizer/byte_alphabet.h"
#include "launch/tokenizer/tokenizer.h"
#include "tests/testing/temp_dir.h"

namespace strata {

inline constexpr int32_t kTinyEos = 1000;  // 256 to 999: the results of merges, in order; then holes

// `merges`: the two sides, in bytes.
inline nlohmann::json TinyTokenizerJson(const std::vector<std::pair<std::string, std::string>>& merges) {
  nlohmann::json model = {{"type", "BPE"}, {"vocab", nlohmann::json::object()}, {"merges", nlohmann::json::array()}};
  const auto add = [&](const std::string& bytes) {
    std::string piece = PieceOfBytes(bytes);
    if (!model["vocab"].contains(piece)) model["vocab"][piece] = model["vocab"].size();
    return piece;
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  for (const auto& [left, right] : merges) {
    add(left + right);
    model["merges"].push_back({PieceOfBytes(left), PieceOfBytes(right)});
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", {{{"id", kTinyEos}, {"content", "<|endoftext|>"}, {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", model}};
}

inline absl::StatusOr<Tokenizer> LoadTiny(const nlohmann::json& json) {
  const TempDir dir;
  const absl::Status written = WriteTextAtomically(Env::Posix(), dir.path("tokenizer.json"), json.dump());
  return written.ok() ? Tokenizer::Load(Env::Posix(), dir.path()) : written;
}

}  // namespace strata
