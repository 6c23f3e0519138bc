#pragma once
// Strict reading of a JSON document: a value knows its path, what is not as expected becomes an error that names path and
// value, and reading goes on with a default, so that code that reads is straight. The first error is kept.

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"

namespace strata {

class JsonValue;

// The document and its first error.
class JsonDocument {
 public:
  // status() is InvalidArgument if `text` is no JSON or nested deeper than max_depth.
  JsonDocument(std::string_view text, int max_depth);
  JsonDocument(const JsonDocument&) = delete;
  JsonDocument& operator=(const JsonDocument&) = delete;

  JsonValue root();
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  void Refuse(const std::string& what);

 private:
  nlohmann::json json_;
  absl::Status status_;
};

// A value of a document, which must outlive it. What is absent is null.
class JsonValue {
 public:
  JsonValue(const nlohmann::json* json, std::string path, JsonDocument* document)
      : json_(json), path_(std::move(path)), document_(document) {}

  const nlohmann::json& json() const { return *json_; }
  const std::string& path() const { return path_; }
  bool is_null() const { return json_->is_null(); }
  bool is_array() const { return json_->is_array(); }

  // An object with no keys but these.
  const JsonValue& Only(std::initializer_list<std::string_view> keys) const;
  JsonValue operator[](std::string_view key) const;  // of an object
  std::vector<JsonValue> Elements() const;           // of an array; none of null

  std::string String() const;
  std::string String(std::string_view if_null) const;
  bool Bool(bool if_null) const;
  int64_t Int(int64_t min, int64_t max) const;
  // Records that the value is not `expected`.
  void Refuse(std::string_view expected) const;

 private:
  const nlohmann::json* json_;
  std::string path_;
  JsonDocument* document_;
};

}  // namespace strata
