#include "launch/data/jsonl.h"

#include <string_view>

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {
namespace {

using Json = nlohmann::json;

// "[...101] parse error at line 1, column 7: syntax error ...; last read: '...'" -> "syntax error ..."
std::string Reason(std::string_view what) {
  if (what.find("ill-formed UTF-8") != std::string_view::npos) return "invalid UTF-8";
  if (const size_t colon = what.find(": "); colon != std::string_view::npos) what.remove_prefix(colon + 2);
  return std::string(what.substr(0, what.find("; last read")));
}

absl::StatusOr<std::string> TextOf(std::string_view line, const std::string& field) {
  if (line.find_first_not_of(" \t\r") == std::string_view::npos) return absl::InvalidArgumentError("an empty line");
  try {  // the library's only way to say what is wrong
    const Json json = Json::parse(line);
    if (!json.is_object()) return absl::InvalidArgumentError(absl::StrFormat("not an object: %s", json.type_name()));
    const auto it = json.find(field);
    if (it == json.end()) return absl::InvalidArgumentError(absl::StrFormat("no field \"%s\"", field));
    if (it->is_string()) return it->get<std::string>();
    return absl::InvalidArgumentError(absl::StrFormat("\"%s\" is not a string: %s", field, it->type_name()));
  } catch (const Json::parse_error& error) {
    return absl::InvalidArgumentError(absl::StrFormat("column %d: %s", error.byte, Reason(error.what())));
  }
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ReadJsonl(Env& env, const std::string& path, const std::string& field) {
  ASSIGN_OR_RETURN(const std::string file, ReadUserFile(env, path));
  std::vector<std::string> texts;
  int64_t number = 0;
  for (std::string_view rest = file; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    ++number;
    absl::StatusOr<std::string> text = TextOf(line, field);
    if (!text.ok()) return Annotate(text.status(), absl::StrFormat("%s:%d", path, number));
    texts.push_back(*std::move(text));
  }
  return texts;
}

}  // namespace strata
