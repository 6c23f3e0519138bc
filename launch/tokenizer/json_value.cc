#include "launch/tokenizer/json_value.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace strata {
namespace {

constexpr size_t kMaxShown = 60;  // bytes of a value in an error

const nlohmann::json& Null() {
  static const nlohmann::json null;
  return null;
}

// The deepest nesting of arrays and objects in `text`, if it is JSON.
int Depth(std::string_view text) {
  int depth = 0, deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\') {
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && (c == '[' || c == '{')) {
      deepest = std::max(deepest, ++depth);
    } else if (!quoted && (c == ']' || c == '}')) {
      --depth;
    }
  }
  return deepest;
}

std::string Shown(const nlohmann::json& json) {
  if (json.is_object()) return absl::StrFormat("an object of %d keys", json.size());
  if (json.is_array()) return absl::StrFormat("an array of %d", json.size());
  std::string text = json.dump(-1, ' ', true);
  return text.size() <= kMaxShown ? text : text.substr(0, kMaxShown) + "...";
}

}  // namespace

JsonDocument::JsonDocument(std::string_view text, int max_depth) {
  if (const int depth = Depth(text); depth > max_depth) {
    Refuse(absl::StrFormat("nested %d deep; the limit is %d", depth, max_depth));
    return;
  }
  try {  // only so does the library say where
    json_ = nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    const std::string what = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const size_t end = what.find("] ");
    Refuse(end == std::string::npos ? what : what.substr(end + 2));
  }
}

JsonValue JsonDocument::root() { return {&json_, "", this}; }

void JsonDocument::Refuse(const std::string& what) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(what);
}

const JsonValue& JsonValue::Only(std::initializer_list<std::string_view> keys) const {
  if (!json_->is_object()) {
    Refuse("an object");
    return *this;
  }
  for (const auto& [key, value] : json_->items()) {
    if (std::ranges::find(keys, key) != keys.end()) continue;
    const std::string path = path_.empty() ? key : path_ + "." + key;
    document_->Refuse(absl::StrFormat("unknown key %s = %s", path.substr(0, 4 * kMaxShown), Shown(value)));
  }
  return *this;
}

JsonValue JsonValue::operator[](std::string_view key) const {
  std::string path = path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  const nlohmann::json* value = &Null();
  if (json_->is_object()) {
    const auto it = json_->find(std::string(key));
    if (it != json_->end()) value = &*it;
  }
  return {value, std::move(path), document_};
}

std::vector<JsonValue> JsonValue::Elements() const {
  std::vector<JsonValue> elements;
  if (is_null()) return elements;
  if (!is_array()) {
    Refuse("an array");
    return elements;
  }
  elements.reserve(json_->size());
  for (const nlohmann::json& element : *json_) {
    elements.emplace_back(&element, absl::StrFormat("%s[%d]", path_, elements.size()), document_);
  }
  return elements;
}

std::string JsonValue::String() const {
  if (json_->is_string()) return json_->get<std::string>();
  Refuse("a string");
  return "";
}

std::string JsonValue::String(std::string_view if_null) const { return is_null() ? std::string(if_null) : String(); }

bool JsonValue::Bool(bool if_null) const {
  if (json_->is_boolean()) return json_->get<bool>();
  if (!is_null()) Refuse("true or false");
  return if_null;
}

int64_t JsonValue::Int(int64_t min, int64_t max) const {
  const bool whole = json_->is_number_integer();
  const bool large = json_->is_number_unsigned() && json_->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (whole && !large && json_->get<int64_t>() >= min && json_->get<int64_t>() <= max) return json_->get<int64_t>();
  Refuse(absl::StrFormat("a whole number from %d to %d", min, max));
  return min;
}

void JsonValue::Refuse(std::string_view expected) const {
  document_->Refuse(
      absl::StrFormat("%s = %s: expected %s", path_.empty() ? "the document" : path_, Shown(*json_), expected));
}

}  // namespace strata
