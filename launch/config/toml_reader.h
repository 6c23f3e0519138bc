#pragma once
// Strict reading of TOML into described config structs. With toml_field.h the only code that knows the file format's parser.

#include <span>
#include <string>
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

// Sets one field from a command line's "optim.lr=0.1", over what a file said, and records it in provenance.set. The value
// is TOML; a string may go without its quotes. Mistakes are addressed to "--set optim.lr=0.1".
void ReadOverride(const std::string& argument, std::span<const ConfigSection> sections, Provenance& provenance,
                  ConfigChecks& checks);

}  // namespace strata
