#include "models/hf/kept_files.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "checkpoint/box.h"
#include "checkpoint/safetensors_folder.h"
#include "core/base/status.h"

namespace strata {
namespace {

constexpr std::string_view kHeaderEnd = ".header";

bool IsText(std::string_view name) {
  for (const std::string_view end : {".json", ".txt", ".model", ".jinja"}) {
    if (name.size() > end.size() && name.ends_with(end) && name[0] != '.') return true;
  }
  return false;
}

absl::Status KeepUnused(Env& env, const HfModel& model, const std::string& kept) {
  if (model.unused().empty()) return absl::OkStatus();
  SafetensorsHeader header;
  for (const StoredTensor* t : model.unused()) header.tensors.push_back(*t);
  LayOutSafetensors(header.tensors);
  return WriteSafetensors(env, kept + "/" + kUnusedTensors, header, PrintSafetensorsHeader(header),
                          [&](const StoredTensor& t, std::span<std::byte> out) {
                            return model.tensors().Read(*model.tensors().Find(t.name), OriginOf(t.shape), t.shape, out);
                          });
}

}  // namespace

absl::StatusOr<std::vector<std::string>> TextsOf(Env& env, const std::string& folder) {
  ASSIGN_OR_RETURN(std::vector<std::string> names, env.List(folder));
  std::erase_if(names, [](const std::string& name) { return !IsText(name); });
  return names;
}

absl::Status CopyTexts(Env& env, const std::string& from, const std::vector<std::string>& names,
                       const std::string& to) {
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const std::string text, ReadText(env, from + "/" + name, kMaxKeptFile));
    RETURN_IF_ERROR(WriteTextAtomically(env, to + "/" + name, text));
  }
  return absl::OkStatus();
}

absl::Status KeepHfFiles(Env& env, const std::string& folder, const HfModel& model, const std::string& kept) {
  RETURN_IF_ERROR(env.MakeDirs(kept));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, TextsOf(env, folder));
  RETURN_IF_ERROR(CopyTexts(env, folder, names, kept));
  for (const SafetensorsFolder::File& f : model.tensors().files()) {
    RETURN_IF_ERROR(WriteTextAtomically(env, kept + "/" + f.name + std::string(kHeaderEnd), f.file.header_text()));
  }
  return KeepUnused(env, model, kept);
}

absl::StatusOr<std::vector<KeptHeader>> ReadKeptHeaders(Env& env, const std::string& kept) {
  std::vector<KeptHeader> headers;
  if (!env.Exists(kept)) return headers;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, env.List(kept));
  for (const std::string& name : names) {
    if (!name.ends_with(kHeaderEnd)) continue;
    KeptHeader header{name.substr(0, name.size() - kHeaderEnd.size()), ""};
    if (!IsSafetensorsName(header.file)) continue;
    ASSIGN_OR_RETURN(header.text, ReadText(env, kept + "/" + name, kMaxSafetensorsHeader));
    headers.push_back(std::move(header));
  }
  return headers;
}

absl::Status MakeEmptyFolder(Env& env, const std::string& folder) {
  if (env.Exists(folder)) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, env.List(folder));
    if (!names.empty()) {
      return absl::AlreadyExistsError(
          absl::StrFormat("%s is not empty: nothing was written; give a folder that is not there yet", folder));
    }
  }
  return env.MakeDirs(folder);
}

}  // namespace strata
