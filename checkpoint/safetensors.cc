#include "checkpoint/safetensors.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <tuple>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/box.h"
#include "checkpoint/manifest.h"
#include "core/base/json_text.h"
#include "core/base/status.h"

namespace strata {
namespace {

using Json = nlohmann::json;  // its objects are sorted: no header takes time in the square of its tensors

constexpr int64_t kLengthBytes = 8;
constexpr int kMaxDepth = 3;  // the header, a tensor, its shape
constexpr size_t kMaxNameBytes = 1024;
constexpr char kMetadata[] = "__metadata__";

absl::Status Bad(const std::string& name, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrFormat("tensor \"%s\": %s", name, what));
}

// An array of `count` unsigned integers at most `max`, or of any number up to kMaxRank where count is -1.
absl::StatusOr<std::vector<int64_t>> Ints(const Json& object, const char* key, int count, int64_t max) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array()) {
    return absl::InvalidArgumentError(absl::StrFormat("%s must be an array", key));
  }
  const auto most = static_cast<size_t>(count < 0 ? kMaxRank : count);
  if (it->size() > most || (count >= 0 && it->size() != most)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s has %d numbers, %s %d", key, it->size(), count < 0 ? "more than" : "not", most));
  }
  std::vector<int64_t> ints;
  for (const Json& item : *it) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > static_cast<uint64_t>(max)) {
      return absl::InvalidArgumentError(absl::StrFormat("%s must hold integers in [0, %d]", key, max));
    }
    ints.push_back(static_cast<int64_t>(item.get<uint64_t>()));
  }
  return ints;
}

absl::StatusOr<StoredTensor> ParseTensor(const std::string& name, const Json& json) {
  if (!json.is_object() || json.size() != 3) {
    return absl::InvalidArgumentError("must be an object of dtype, shape and data_offsets");
  }
  StoredTensor t{.name = name};
  const auto dtype = json.find("dtype");
  if (dtype == json.end() || !dtype->is_string()) return absl::InvalidArgumentError("dtype must be a string");
  const std::optional<StoredType> type = StoredTypeOf(*dtype->get_ptr<const std::string*>());
  if (!type) return absl::InvalidArgumentError(absl::StrFormat("dtype %s is not read", dtype->dump()));
  t.type = *type;
  ASSIGN_OR_RETURN(const std::vector<int64_t> dims, Ints(json, "shape", -1, kMaxTensorElements));
  for (const int64_t d : dims) t.shape[t.shape.rank++] = d;
  if (!CheckedElements(t.shape)) {
    return absl::InvalidArgumentError(absl::StrFormat("shape %s is empty or too large", ToString(t.shape)));
  }
  ASSIGN_OR_RETURN(const std::vector<int64_t> range, Ints(json, "data_offsets", 2, kMaxFileBytes));
  t.offset = range[0];
  if (range[1] < range[0] || range[1] - range[0] != t.bytes()) {
    return absl::InvalidArgumentError(absl::StrFormat("data_offsets [%d, %d] are not the %d bytes of %s %s", range[0],
                                                      range[1], t.bytes(), Name(t.type), ToString(t.shape)));
  }
  return t;
}

absl::Status ParseMetadata(const Json& json, SafetensorsHeader& header) {
  if (!json.is_object()) return absl::InvalidArgumentError("__metadata__ must be an object");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) return absl::InvalidArgumentError("__metadata__ must hold strings");
    header.metadata.emplace_back(key, *value.get_ptr<const std::string*>());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text) {
  if (std::ssize(text) > kMaxSafetensorsHeader) return absl::InvalidArgumentError("the header is too long");
  if (JsonDepth(text) > kMaxDepth) return absl::InvalidArgumentError("the header is nested too deep");
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("the header is not a JSON object");
  SafetensorsHeader header;
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadata) {
      RETURN_IF_ERROR(ParseMetadata(value, header));
      continue;
    }
    if (name.empty() || name.size() > kMaxNameBytes) return Bad(name.substr(0, 80), "a name has 1 to 1024 bytes");
    absl::StatusOr<StoredTensor> tensor = ParseTensor(name, value);
    if (!tensor.ok()) return Bad(name, std::string(tensor.status().message()));
    header.tensors.push_back(*std::move(tensor));
    if (header.tensors.size() > kMaxStoredTensors) return absl::InvalidArgumentError("too many tensors");
  }
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.offset < b.offset; });
  int64_t at = 0;
  for (const StoredTensor& t : header.tensors) {
    if (t.offset != at) {
      return Bad(t.name, absl::StrFormat("begins at byte %d, not at %d where the one before it ends", t.offset, at));
    }
    at += t.bytes();  // no overflow: each ends within kMaxFileBytes
  }
  return header;
}

void LayOutSafetensors(std::vector<StoredTensor>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::tie(b.type, a.name) < std::tie(a.type, b.name);
  });
  int64_t at = 0;
  for (StoredTensor& t : tensors) {
    t.offset = at;
    at += t.bytes();
  }
}

std::string PrintSafetensorsHeader(const SafetensorsHeader& header) {
  std::string text = "{";
  const auto quoted = [](const std::string& s) { return Json(s).dump(-1, ' ', false, Json::error_handler_t::replace); };
  const auto comma = [&] { return text.back() == '{' ? "" : ","; };
  if (!header.metadata.empty()) {
    text += quoted(kMetadata) + ":{";
    for (const auto& [key, value] : header.metadata) text += comma() + quoted(key) + ":" + quoted(value);
    text += "}";
  }
  for (const StoredTensor& t : header.tensors) {
    const std::vector<int64_t> dims(t.shape.dim, t.shape.dim + t.shape.rank);
    absl::StrAppendFormat(&text, R"(%s%s:{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]})", comma(), quoted(t.name),
                          Name(t.type), absl::StrJoin(dims, ","), t.offset, t.offset + t.bytes());
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(Env& env, const std::string& path) {
  SafetensorsFile f;
  f.path_ = path;
  ASSIGN_OR_RETURN(f.file_, env.OpenReadable(path));
  const int64_t size = f.file_->size();
  std::byte length[kLengthBytes] = {};
  if (size >= kLengthBytes) RETURN_IF_ERROR(f.file_->ReadAt(0, length));
  uint64_t n = 0;
  for (int i = 0; i < kLengthBytes; ++i) n |= std::to_integer<uint64_t>(length[i]) << (8 * i);
  if (size < kLengthBytes || n > static_cast<uint64_t>(std::min(kMaxSafetensorsHeader, size - kLengthBytes)) ||
      size > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: not a safetensors file: a header of %d bytes does not fit in a file of %d (or is above the cap of %d)",
        path, n, size, kMaxSafetensorsHeader));
  }
  const auto header_bytes = static_cast<int64_t>(n);
  f.text_.resize(n);
  RETURN_IF_ERROR(f.file_->ReadAt(kLengthBytes, std::as_writable_bytes(std::span(f.text_))));
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(f.text_);
  if (!header.ok()) return Annotate(header.status(), path);
  if (const int64_t data = size - kLengthBytes - header_bytes; data != header->data_bytes()) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: its tensors have %d bytes, the file has %d after its header",
                                                      path, header->data_bytes(), data));
  }
  f.header_ = *std::move(header);
  return f;
}

absl::Status SafetensorsFile::Read(int64_t offset, std::span<std::byte> out) const {
  return file_->ReadAt(kLengthBytes + std::ssize(text_) + offset, out);
}

absl::Status WriteSafetensors(Env& env, const std::string& path, const SafetensorsHeader& header,
                              const std::string& header_text, FillStored fill) {
  const std::string tmp = path + ".tmp";
  ASSIGN_OR_RETURN(const auto file, env.OpenWritable(tmp, Env::Open::kTruncate));
  std::byte length[kLengthBytes];
  for (int i = 0; i < kLengthBytes; ++i) length[i] = std::byte(header_text.size() >> (8 * i) & 0xff);
  RETURN_IF_ERROR(file->Append(length));
  RETURN_IF_ERROR(file->Append(std::as_bytes(std::span(header_text))));
  std::vector<std::byte> bytes;
  for (const StoredTensor& t : header.tensors) {
    bytes.resize(static_cast<size_t>(t.bytes()));
    RETURN_IF_ERROR(fill(t, bytes));
    RETURN_IF_ERROR(file->Append(bytes));
  }
  RETURN_IF_ERROR(file->Sync());
  RETURN_IF_ERROR(file->Close());
  RETURN_IF_ERROR(env.Rename(tmp, path));
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return env.SyncDir(folder.empty() ? "." : folder);
}

}  // namespace strata
