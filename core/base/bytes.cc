#include "core/base/bytes.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_format.h"

namespace strata {
namespace {

struct Unit {
  std::string_view name;
  double bytes;
};
constexpr Unit kUnits[] = {{"B", 1},    {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
                           {"kB", 1e3}, {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};

}  // namespace

absl::StatusOr<int64_t> ParseBytes(std::string_view text) {
  double number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  std::string_view unit(rest, static_cast<size_t>(text.data() + text.size() - rest));
  while (!unit.empty() && unit[0] == ' ') unit.remove_prefix(1);
  for (const Unit& u : kUnits) {
    if (error != std::errc() || unit != u.name) continue;
    const double bytes = number * u.bytes;
    if (bytes >= 0 && bytes <= 0x1p62) return static_cast<int64_t>(bytes);
  }
  return absl::InvalidArgumentError(absl::StrFormat("\"%s\" is not a number of bytes such as 16GiB", text));
}

}  // namespace strata
