#pragma once
// What of a Hugging Face folder goes along with its weights, in RUN/huggingface: config.json, the tokenizer's files and other
// small texts as they are; of each safetensors file its header, as FILE.header; the tensors that no parameter needs. With
// them a model is written back byte for byte.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "models/hf/hf_model.h"

namespace strata {

inline constexpr char kKeptFolder[] = "huggingface";
inline constexpr char kUnusedTensors[] = "unused.safetensors";
inline constexpr int64_t kMaxKeptFile = int64_t{64} << 20;  // bytes

// The names of a folder's files that are carried along: *.json, *.txt, *.model and *.jinja, sorted; no safetensors.
absl::StatusOr<std::vector<std::string>> TextsOf(Env& env, const std::string& folder);

// Copies files of those names, each whole or not at all. InvalidArgument for one over kMaxKeptFile.
absl::Status CopyTexts(Env& env, const std::string& from, const std::vector<std::string>& names, const std::string& to);

// Fills `kept` (made where it is not there) from the model's folder. What is there already is written again.
absl::Status KeepHfFiles(Env& env, const std::string& folder, const HfModel& model, const std::string& kept);

// The headers that are kept: the file's name and text. None where there is no such folder.
struct KeptHeader {
  std::string file;
  std::string text;
};
absl::StatusOr<std::vector<KeptHeader>> ReadKeptHeaders(Env& env, const std::string& kept);

// OK where `folder` is empty or not there, and makes it; else AlreadyExists.
absl::Status MakeEmptyFolder(Env& env, const std::string& folder);

}  // namespace strata
