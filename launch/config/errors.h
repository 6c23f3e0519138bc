#pragma once
// Mistakes in a config file, as text, all at once:
//   error[E0107]: unknown key `weigth_decay` in [optim]
//     --> run.toml:14:1    did you mean `weight_decay`?

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "core/base/config.h"

namespace strata {

struct ErrorCode {
  ConfigErrorKind kind;
  std::string_view code;     // stable: never renumbered, never used again for something else
  std::string_view meaning;  // one line
};
inline constexpr ErrorCode kErrorCodes[] = {
    {ConfigErrorKind::kUnreadable, "E0101", "the config file cannot be read"},
    {ConfigErrorKind::kSyntax, "E0102", "the config file is not valid TOML"},
    {ConfigErrorKind::kDuplicate, "E0103", "a key or section is given twice"},
    {ConfigErrorKind::kUnknownSection, "E0106", "there is no such section"},
    {ConfigErrorKind::kUnknownKey, "E0107", "the section has no such key"},
    {ConfigErrorKind::kWrongType, "E0108", "the value has another type than the key"},
    {ConfigErrorKind::kMissing, "E0109", "a value that the command needs is not set"},
    {ConfigErrorKind::kOutOfRange, "E0110", "the value is outside the limits of the key"},
    {ConfigErrorKind::kNotAChoice, "E0111", "the value is not one of the choices"},
    {ConfigErrorKind::kIndivisible, "E0201", "a size does not divide by another"},
    {ConfigErrorKind::kContradiction, "E0202", "two values exclude each other"},
    {ConfigErrorKind::kTooLarge, "E0203", "sizes multiply to more than is supported"},
    {ConfigErrorKind::kNoSuchFile, "E0204", "a file that the config names does not exist"},
    {ConfigErrorKind::kMismatch, "E0205", "the config disagrees with a file that it names"},
};
std::string_view CodeOf(ConfigErrorKind kind);

// Where each value came from. Keys are "section.key".
struct Provenance {
  struct Position {
    int line = 0, column = 0;  // of the value, from 1
  };
  std::string file;  // as the user wrote it
  std::map<std::string, Position, std::less<>> at;
  std::map<std::string, std::string, std::less<>> set;      // "optim.lr": "--set optim.lr=x", over the file
  std::map<std::string, std::string, std::less<>> derived;  // "batch.micro": "from batch.tokens and batch.accumulate"

  // "run.toml:14", "command line", "default", or what it is derived from.
  std::string Of(std::string_view key) const;
};

// OK if there are no issues, else InvalidArgument with the whole text, in the order of the file. Later checks use it too,
// such as of the vocabulary against the tokenizer, so that they point into the file.
absl::Status ConfigError(const Provenance& provenance, std::span<const ConfigIssue> issues);

}  // namespace strata
