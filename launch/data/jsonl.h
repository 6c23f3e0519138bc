#pragma once
// Documents out of JSON lines: one object a line, the text in one of its fields.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/env.h"

namespace strata {

// The texts of `path`, in order; an empty text is one too. InvalidArgument names file and line: not JSON, not an object, no
// such field, not a string, not UTF-8, an empty line.
absl::StatusOr<std::vector<std::string>> ReadJsonl(Env& env, const std::string& path, const std::string& field);

}  // namespace strata
