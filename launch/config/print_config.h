#pragma once
// The effective config as TOML.

#include <string>

#include "launch/config/errors.h"
#include "launch/config/job_config.h"

namespace strata {

// Each line ends with where its value came from: "# run.toml:14" or "# default". It loads back to an equal config, from
// any folder.
std::string PrintConfig(const JobConfig& config, const Provenance& provenance);

std::string TomlValue(const FieldRef& field);  // "true", "7", "0.1", "\"text\"", "[...]"

}  // namespace strata
