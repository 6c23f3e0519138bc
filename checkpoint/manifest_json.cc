// Manifest and ShardRecord as JSON text, and back from text that nobody vouches for.

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <unordered_map>

#include "absl/strings/str_format.h"
#include "checkpoint/manifest.h"
#include "core/base/crc32c.h"
#include "core/base/json_text.h"
#include "core/base/status.h"

namespace strata {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kFormat = "strata-checkpoint";
// The text opens so, with the checksum's digits in place of the zeros.
constexpr std::string_view kHead = R"({"crc32c":"00000000",)";
constexpr size_t kDigits = 11, kNumDigits = 8;

// ---- writing

Json ToArray(const Shape& shape) { return std::vector<int64_t>(shape.dim, shape.dim + shape.rank); }

Json ToObject(const FileRecord& file) {
  return {{"name", file.name}, {"bytes", file.bytes}, {"crc32c", file.crc32c}, {"block_crc32c", file.block_crc32c}};
}

Json ToObject(const TensorRecord& tensor, std::span<const FileRecord> files) {
  Json boxes = Json::array();
  for (const StoredBox& box : tensor.boxes) {
    boxes.push_back({{"offset", ToArray(box.offset)},
                     {"size", ToArray(box.size)},
                     {"file", files[box.file].name},
                     {"byte_offset", box.byte_offset}});
  }
  return {{"name", tensor.name}, {"dtype", Name(tensor.dtype)}, {"shape", ToArray(tensor.global)}, {"boxes", boxes}};
}

Json ToArray(const std::vector<TensorRecord>& tensors, std::span<const FileRecord> files) {
  Json array = Json::array();
  for (const TensorRecord& tensor : tensors) array.push_back(ToObject(tensor, files));
  return array;
}

std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string ChecksumDigits(const std::string& text_with_zeros) {
  return absl::StrFormat("%08x", Crc32c(std::as_bytes(std::span(text_with_zeros))));
}

// ---- reading

absl::StatusOr<Json> ParseJson(std::string_view text) {
  if (static_cast<int64_t>(text.size()) > kMaxManifestBytes) return absl::InvalidArgumentError("the text is too long");
  if (JsonDepth(text) > kMaxJsonDepth) return absl::InvalidArgumentError("JSON is nested too deep");
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("not JSON");
  return json;
}

// Typed reading of one JSON object. The first error is kept, and names the place; after it, values are empty.
class Fields {
 public:
  Fields(const Json& object, std::string where, absl::Status* error)
      : object_(object), where_(std::move(where)), error_(error) {}

  template <typename T>
  T Int(const char* key, T max) {
    const Json* value = Find(key);
    if (value != nullptr && value->is_number_unsigned() && value->get<uint64_t>() <= static_cast<uint64_t>(max)) {
      return static_cast<T>(value->get<uint64_t>());
    }
    Fail(key, absl::StrFormat("must be an integer in [0, %d]", max));
    return 0;
  }

  std::string Text(const char* key) {
    const Json* value = Find(key);
    if (value != nullptr && value->is_string()) return *value->get_ptr<const std::string*>();
    Fail(key, "must be a string");
    return {};
  }

  const Json& Array(const char* key) {
    static const Json empty = Json::array();
    const Json* value = Find(key);
    if (value != nullptr && value->is_array()) return *value;
    Fail(key, "must be an array");
    return empty;
  }

  template <typename T>
  std::vector<T> Ints(const char* key, T max) {
    std::vector<T> result;
    for (const Json& item : Array(key)) {
      if (!item.is_number_unsigned() || item.get<uint64_t>() > static_cast<uint64_t>(max)) {
        Fail(key, absl::StrFormat("must hold integers in [0, %d]", max));
        return {};
      }
      result.push_back(static_cast<T>(item.get<uint64_t>()));
    }
    return result;
  }

  Shape Dims(const char* key) {
    const std::vector<int64_t> dims = Ints<int64_t>(key, kMaxTensorElements);
    if (dims.size() > kMaxRank) {
      Fail(key, absl::StrFormat("has %d dims, more than %d", dims.size(), kMaxRank));
      return {};
    }
    Shape shape;
    for (const int64_t d : dims) shape[shape.rank++] = d;
    return shape;
  }

  DType Type(const char* key) {
    const std::string text = Text(key);
    for (const DType t : kDTypes) {
      if (text == Name(t)) return t;
    }
    Fail(key, "is not a known dtype");
    return DType::kF32;
  }

  void Fail(const char* key, const std::string& what) {
    if (error_->ok()) *error_ = absl::InvalidArgumentError(absl::StrFormat("%s.%s %s", where_, key, what));
  }

 private:
  const Json* Find(const char* key) const {
    if (!object_.is_object()) return nullptr;
    const auto it = object_.find(key);
    return it == object_.end() ? nullptr : &*it;
  }

  const Json& object_;
  const std::string where_;
  absl::Status* error_;
};

FileRecord ReadFileRecord(const Json& json, const std::string& where, absl::Status* error) {
  Fields fields(json, where, error);
  constexpr uint32_t kMax = std::numeric_limits<uint32_t>::max();
  return {fields.Text("name"), fields.Int<int64_t>("bytes", kMaxFileBytes), fields.Int<uint32_t>("crc32c", kMax),
          fields.Ints<uint32_t>("block_crc32c", kMax)};
}

using FileIndex = std::unordered_map<std::string, int>;

TensorRecord ReadTensorRecord(const Json& json, const std::string& where, const FileIndex& files, absl::Status* error) {
  Fields fields(json, where, error);
  TensorRecord tensor{fields.Text("name"), fields.Type("dtype"), fields.Dims("shape"), {}};
  for (const Json& item : fields.Array("boxes")) {
    Fields box(item, absl::StrFormat("%s.boxes[%d]", where, tensor.boxes.size()), error);
    const auto file = files.find(box.Text("file"));
    if (file == files.end()) {
      box.Fail("file", "is not in the list of files");
      break;
    }
    tensor.boxes.push_back(
        {box.Dims("offset"), box.Dims("size"), file->second, box.Int<int64_t>("byte_offset", kMaxFileBytes)});
    if (!error->ok()) break;
  }
  return tensor;
}

std::vector<TensorRecord> ReadTensors(Fields& fields, const std::vector<FileRecord>& files, absl::Status* error) {
  FileIndex index;
  for (const FileRecord& file : files) index.emplace(file.name, static_cast<int>(index.size()));
  std::vector<TensorRecord> tensors;
  for (const Json& item : fields.Array("tensors")) {
    tensors.push_back(ReadTensorRecord(item, absl::StrFormat("tensors[%d]", tensors.size()), index, error));
    if (!error->ok()) break;
  }
  return tensors;
}

}  // namespace

std::string ToJson(const ShardRecord& shard) {
  return Dump({{"file", ToObject(shard.file)}, {"tensors", ToArray(shard.tensors, std::span(&shard.file, 1))}});
}

std::string ToJson(const Manifest& manifest) {
  Json files = Json::array();
  for (const FileRecord& file : manifest.files) files.push_back(ToObject(file));
  const Json json = {{"format", kFormat},
                     {"version", kCheckpointVersion},
                     {"step", manifest.step},
                     {"mesh", manifest.meta.mesh},
                     {"next_sample", manifest.meta.next_sample},
                     {"seed", manifest.meta.seed},
                     {"config", manifest.meta.config},
                     {"block_bytes", kBlockBytes},
                     {"files", files},
                     {"tensors", ToArray(manifest.tensors, manifest.files)}};
  std::string text = std::string(kHead) + Dump(json).substr(1);
  return text.replace(kDigits, kNumDigits, ChecksumDigits(text));
}

absl::StatusOr<ShardRecord> ParseShardRecord(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  absl::Status error;
  Fields fields(json, "shard", &error);
  static const Json null;
  const auto file = json.find("file");
  ShardRecord shard{ReadFileRecord(file == json.end() ? null : *file, "shard.file", &error), {}};
  shard.tensors = ReadTensors(fields, {shard.file}, &error);
  RETURN_IF_ERROR(error);
  return shard;
}

absl::StatusOr<Manifest> ParseManifest(std::string_view text) {
  std::string zeroed(text);
  if (text.size() > kHead.size()) zeroed.replace(kDigits, kNumDigits, kNumDigits, '0');
  if (!zeroed.starts_with(kHead) || text.substr(kDigits, kNumDigits) != ChecksumDigits(zeroed)) {
    return absl::DataLossError("the manifest's own checksum fails: it is damaged");
  }
  ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  absl::Status error;
  Fields fields(json, "manifest", &error);
  if (fields.Text("format") != kFormat) fields.Fail("format", absl::StrFormat("is not \"%s\"", kFormat));
  if (fields.Int<int64_t>("version", kMaxFileBytes) != kCheckpointVersion) {
    fields.Fail("version", absl::StrFormat("is not %d, the only one that this program reads", kCheckpointVersion));
  }
  if (fields.Int<int64_t>("block_bytes", kMaxFileBytes) != kBlockBytes) {
    fields.Fail("block_bytes", absl::StrFormat("is not %d", kBlockBytes));
  }
  RETURN_IF_ERROR(error);
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  Manifest manifest;
  manifest.step = fields.Int<int64_t>("step", kMax);
  manifest.meta = {fields.Text("mesh"), fields.Int<int64_t>("next_sample", kMax),
                   fields.Int<uint64_t>("seed", std::numeric_limits<uint64_t>::max()), fields.Text("config")};
  for (const Json& item : fields.Array("files")) {
    manifest.files.push_back(ReadFileRecord(item, absl::StrFormat("files[%d]", manifest.files.size()), &error));
    RETURN_IF_ERROR(error);
  }
  manifest.tensors = ReadTensors(fields, manifest.files, &error);
  RETURN_IF_ERROR(error);
  RETURN_IF_ERROR(Validate(manifest));
  return manifest;
}

}  // namespace strata
