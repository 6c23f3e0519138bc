#pragma once
// The reference page of the config file, from the descriptions of its structs.

#include <string>

namespace strata {

// Markdown; docs/config.md holds it, and a test keeps them equal.
std::string ConfigReference();

}  // namespace strata
