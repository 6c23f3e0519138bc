#include "launch/tokenizer/special_files.h"

#include <limits>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/tokenizer/json_value.h"

namespace strata {
namespace {

constexpr int64_t kMaxBytes = 16 << 20;
constexpr int kMaxDepth = 64;

// "token", or {"content": "token", ...}; null where there is none.
std::optional<std::string> TokenContent(const JsonValue& value) {
  if (value.is_null()) return std::nullopt;
  return value.json().is_object() ? value["content"].String() : value.String();
}

void ParseTokenizerConfig(const JsonValue& root, SpecialNames& names) {
  names.bos = TokenContent(root["bos_token"]);
  names.eos = TokenContent(root["eos_token"]);
}

void ParseGenerationConfig(const JsonValue& root, SpecialNames& names) {
  const JsonValue eos = root["eos_token_id"];
  if (eos.is_null()) return;
  const std::vector<JsonValue> ids = eos.is_array() ? eos.Elements() : std::vector<JsonValue>{eos};
  for (const JsonValue& id : ids) {
    names.stop.push_back(static_cast<int32_t>(id.Int(0, std::numeric_limits<int32_t>::max())));
  }
}

}  // namespace

absl::StatusOr<std::vector<SpecialFile>> ReadSpecialFiles(Env& env, const std::string& folder) {
  std::vector<SpecialFile> files;
  for (const std::string_view name : {kTokenizerConfig, kGenerationConfig}) {
    const std::string path = folder + "/" + std::string(name);
    if (!env.Exists(path)) continue;
    ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, env.OpenLinked(path));
    if (file->size() > kMaxBytes) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: %d bytes; the limit is %d", path, file->size(), kMaxBytes));
    }
    SpecialFile read{std::string(name), std::string(static_cast<size_t>(file->size()), '\0')};
    RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(read.text))));
    files.push_back(std::move(read));
  }
  return files;
}

absl::StatusOr<SpecialNames> ParseSpecialFiles(const std::vector<SpecialFile>& files) {
  SpecialNames names;
  for (const SpecialFile& file : files) {
    JsonDocument document(file.text, kMaxDepth);
    const JsonValue root = document.root();
    if (document.ok() && !root.json().is_object()) root.Refuse("an object");
    if (document.ok()) {
      file.name == kTokenizerConfig ? ParseTokenizerConfig(root, names) : ParseGenerationConfig(root, names);
    }
    if (!document.ok()) return Annotate(document.status(), file.name);
  }
  return names;
}

}  // namespace strata
