#include "checkpoint/safetensors_folder.h"

#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_format.h"
#include "checkpoint/box.h"
#include "core/base/json_text.h"
#include "core/base/status.h"

namespace strata {
namespace {

constexpr int kMaxDepth = 4;

// "00042" is 42; -1 for anything but five digits.
int FiveDigits(std::string_view text) {
  int value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return -1;
    value = 10 * value + (c - '0');
  }
  return text.size() == 5 ? value : -1;
}

// The names of the folder's files, and of each tensor its file where an index says so.
struct Contents {
  std::set<std::string> files;
  std::map<std::string, std::string> index;
};

absl::StatusOr<Contents> ListContents(Env& env, const std::string& folder) {
  const std::string index_path = folder + "/" + kSafetensorsIndex;
  if (!env.Exists(index_path)) {
    if (env.Exists(folder + "/" + kSafetensorsName)) return Contents{{kSafetensorsName}, {}};
    return absl::NotFoundError(
        absl::StrFormat("%s has neither %s nor %s", folder, kSafetensorsName, kSafetensorsIndex));
  }
  ASSIGN_OR_RETURN(const std::string text, ReadText(env, index_path, kMaxSafetensorsIndex));
  Contents contents;
  absl::StatusOr<std::map<std::string, std::string>> index = ParseSafetensorsIndex(text);
  if (!index.ok()) return Annotate(index.status(), index_path);
  contents.index = *std::move(index);
  for (const auto& [tensor, file] : contents.index) contents.files.insert(file);
  return contents;
}

}  // namespace

bool IsSafetensorsName(std::string_view name) {
  if (name == kSafetensorsName) return true;
  constexpr std::string_view kForm = "model-00000-of-00000.safetensors";
  if (name.size() != kForm.size() || name.substr(0, 6) != kForm.substr(0, 6) ||
      name.substr(11, 4) != kForm.substr(11, 4) || name.substr(20) != kForm.substr(20)) {
    return false;
  }
  const int index = FiveDigits(name.substr(6, 5)), count = FiveDigits(name.substr(15, 5));
  return 1 <= index && index <= count;
}

std::string ShardName(int index, int count) {
  return count == 1 ? kSafetensorsName : absl::StrFormat("model-%05d-of-%05d.safetensors", index, count);
}

absl::StatusOr<std::map<std::string, std::string>> ParseSafetensorsIndex(std::string_view text) {
  if (std::ssize(text) > kMaxSafetensorsIndex) return absl::InvalidArgumentError("the index is too long");
  if (JsonDepth(text) > kMaxDepth) return absl::InvalidArgumentError("the index is nested too deep");
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object()) {
    return absl::InvalidArgumentError("not a JSON object with a weight_map");
  }
  std::map<std::string, std::string> index;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsSafetensorsName(*file.get_ptr<const std::string*>())) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "tensor \"%s\": its file must be model.safetensors or model-NNNNN-of-NNNNN.safetensors, not %s", tensor,
          file.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)));
    }
    index.emplace(tensor, *file.get_ptr<const std::string*>());
  }
  return index;
}

absl::StatusOr<SafetensorsFolder> SafetensorsFolder::Open(Env& env, const std::string& folder) {
  ASSIGN_OR_RETURN(const Contents contents, ListContents(env, folder));
  SafetensorsFolder result;
  result.folder_ = folder;
  for (const std::string& name : contents.files) {
    const std::string path = folder + "/" + name;
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(env, path));
    const int f = static_cast<int>(result.files_.size());
    for (size_t i = 0; i < file.header().tensors.size(); ++i) {
      const std::string& tensor = file.header().tensors[i].name;
      const auto indexed = contents.index.find(tensor);
      if (!contents.index.empty() && (indexed == contents.index.end() || indexed->second != name)) {
        return absl::InvalidArgumentError(
            absl::StrFormat("%s holds tensor \"%s\", which %s does not say", path, tensor, kSafetensorsIndex));
      }
      result.index_.emplace(tensor, Place{f, static_cast<int>(i)});
    }
    result.files_.push_back({name, std::move(file)});
  }
  for (const auto& [tensor, file] : contents.index) {
    if (!result.index_.contains(tensor)) {
      return absl::InvalidArgumentError(absl::StrFormat("%s/%s has no tensor \"%s\", which %s says it holds", folder,
                                                        file, tensor, kSafetensorsIndex));
    }
  }
  return result;
}

const StoredTensor* SafetensorsFolder::Find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &files_[it->second.file].file.header().tensors[it->second.tensor];
}

std::vector<const StoredTensor*> SafetensorsFolder::tensors() const {
  std::vector<const StoredTensor*> all;
  for (const auto& [name, place] : index_) all.push_back(Find(name));
  return all;
}

absl::Status SafetensorsFolder::Read(const StoredTensor& tensor, const Shape& offset, const Shape& size,
                                     std::span<std::byte> out) const {
  RETURN_IF_ERROR(Annotate(CheckBox(tensor.shape, offset, size), tensor.name));
  if (std::ssize(out) != size.elements() * SizeOf(tensor.type)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %d bytes for a box of %s", tensor.name, out.size(), BoxName(offset, size)));
  }
  const SafetensorsFile& file = files_[index_.find(tensor.name)->second.file].file;
  return ForEachRun(
      OriginOf(tensor.shape), tensor.shape, offset, size, SizeOf(tensor.type),
      [&](int64_t from, int64_t to, int64_t bytes) { return file.Read(tensor.offset + from, out.subspan(to, bytes)); });
}

}  // namespace strata
