#pragma once
// Small reflection for config structs. A struct is defined, documented and checked beside the component it configures,
// and knows no file format:
//
//   struct AdamWConfig {
//     double lr = 3e-4;
//     void Describe(ConfigFields& f) { f.Add("lr", lr, {.doc = "peak learning rate", .max = 10}); }
//     void Check(ConfigChecks& c) const;  // only what one field alone cannot tell
//   };
//
// A reader fills the described fields in, a printer prints them, CheckLimits holds each to its own limits.
// Values are plain data: no thread-safety of their own.

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace strata {

// An enum whose values 0, 1, 2, ... are written as names[0], names[1], names[2], ...
struct ChoiceRef {
  uint8_t* value;
  std::span<const std::string_view> names;
};
// One of several files. A list of one with weight 1 is written as its path alone, an empty list as "".
struct WeightedPath {
  std::string path;
  double weight = 1;
  bool operator==(const WeightedPath&) const = default;
};
using FieldRef = std::variant<bool*, int64_t*, double*, std::string*, ChoiceRef, std::vector<double>*,
                              std::vector<std::string>*, std::vector<WeightedPath>*>;

struct FieldInfo {
  std::string_view doc;                                   // one line
  std::string_view unit;                                  // "tokens"; empty where there is none
  double min = -std::numeric_limits<double>::infinity();  // inclusive limits of a number, or of each of a list
  double max = std::numeric_limits<double>::infinity();
  bool is_path = false;  // the reader makes a relative path relative to the config file's folder
};

struct ConfigField {
  std::string name;
  FieldRef value;  // points into the struct that described itself
  FieldInfo info;
};

class ConfigFields {
 public:
  template <class T>
  void Add(std::string_view name, T& value, FieldInfo info) {
    fields_.push_back({std::string(name), &value, info});
  }
  template <class E>
  void AddChoice(std::string_view name, E& value, std::span<const std::string_view> names, FieldInfo info) {
    static_assert(std::is_same_v<std::underlying_type_t<E>, uint8_t>);
    fields_.push_back({std::string(name), ChoiceRef{reinterpret_cast<uint8_t*>(&value), names}, info});
  }
  std::vector<ConfigField> Take() && { return std::move(fields_); }

 private:
  std::vector<ConfigField> fields_;
};

template <class Config>
std::vector<ConfigField> DescribeFields(Config& config) {
  ConfigFields fields;
  config.Describe(fields);
  return std::move(fields).Take();
}

// Kinds of mistakes. Each has a stable code (launch/config/errors.h).
enum class ConfigErrorKind : uint8_t {
  kUnreadable,  // the config file itself
  kSyntax,      // not a document of the file format
  kDuplicate,   // a key or section given twice
  kUnknownSection,
  kUnknownKey,
  kWrongType,
  kMissing,     // a value that the command needs
  kOutOfRange,  // outside a field's own limits
  kNotAChoice,
  kIndivisible,
  kContradiction,  // fields that exclude one another
  kTooLarge,       // each field is fine, what they multiply to is not
  kNoSuchFile,
  kMismatch,  // disagrees with a file it names
};

struct ConfigIssue {
  ConfigErrorKind kind;
  std::string key;           // "model.heads"
  std::string message;       // "model.heads = 7: must divide model.dim = 64"
  std::string hint;          // "nearest valid: 8"
  int line = 0, column = 0;  // of the mistake, from 1; 0: where the key was set
};

// A number with the key that it is set by.
struct KeyedInt {
  std::string_view key;
  int64_t value;
};

// Collects mistakes. A check that builds on other fields runs only if Ok(those), so that one mistake is reported once.
class ConfigChecks {
 public:
  void Add(ConfigIssue issue) { issues_.push_back(std::move(issue)); }
  // "key = value: expected", and "nearest valid: nearest" where that is not empty.
  void Add(ConfigErrorKind kind, std::string_view key, std::string_view value, std::string_view expected,
           std::string_view nearest = "");
  bool Ok(std::initializer_list<std::string_view> keys) const;  // none of them has an issue yet
  // divisor.value must divide number.value; the issue is the divisor's, with the nearest divisor as its hint. Both must
  // be positive, or have an issue already.
  void Divides(KeyedInt divisor, KeyedInt number);

  const std::vector<ConfigIssue>& issues() const { return issues_; }

 private:
  std::vector<ConfigIssue> issues_;
};

// Holds one field of `section` to its limits; numbers must be finite.
void CheckLimits(std::string_view section, const ConfigField& field, ConfigChecks& checks);

std::string FormatDouble(double value);  // the shortest text that reads back the same: "0.1", "1e-08", "3.0"
int64_t NearestDivisor(int64_t number, int64_t near);  // of number >= 1; the lower one of two at the same distance

}  // namespace strata
