#pragma once
// One value of a TOML document into one described field.

#include <string>
#include <string_view>

#include <toml++/toml.h>

#include "core/base/config.h"
#include "launch/config/errors.h"

namespace strata {

std::string_view TomlTypeName(const toml::node& node);  // "an integer"
Provenance::Position TomlPosition(const toml::source_region& region);

// Sets the field `value` of `key` ("optim.lr"). A value that does not fit goes to `checks`, with its place; the field is then
// as it was. Of a list of tables each item's place is recorded too ("data.train[0]").
void ReadTomlField(std::string key, const toml::node& node, const FieldRef& value, Provenance& provenance,
                   ConfigChecks& checks);

}  // namespace strata
