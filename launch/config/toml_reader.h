#pragma once
// Strict reading of TOML into described config structs. The only code that knows the file format's parser.

#include <span>
#include <string_view>

#include "core/base/config.h"
#include "launch/config/errors.h"
#include "launch/config/job_config.h"

namespace strata {

// Sets every field of `sections` that `text` gives and records its position in provenance.at. Mistakes go to `checks`:
// unknown sections and keys (with the nearest known one), wrong types, values that are no choice. A field with a mistake
// keeps its value. A syntax error or a duplicate ends reading, as the rest cannot be told.
void ReadToml(std::string_view text, std::span<const ConfigSection> sections, Provenance& provenance,
              ConfigChecks& checks);

}  // namespace strata
