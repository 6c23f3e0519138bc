#include "core/base/config.h"

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace strata {
namespace {

std::string FormatLimit(double limit, bool integral) {
  return integral ? absl::StrFormat("%.0f", limit) : FormatDouble(limit);
}

// `value` is the number itself, or one number of a list.
void CheckNumber(const std::string& key, double value, std::string_view text, bool integral, const FieldInfo& info,
                 ConfigChecks& checks) {
  if (value >= info.min && value <= info.max && std::isfinite(value)) return;
  const bool low = std::isfinite(info.min), high = std::isfinite(info.max);
  const std::string min = FormatLimit(info.min, integral), max = FormatLimit(info.max, integral);
  std::string expected = "must be finite";
  if (low && high) expected = absl::StrCat("must be from ", min, " to ", max);
  if (low && !high) expected = absl::StrCat("must be at least ", min);
  if (!low && high) expected = absl::StrCat("must be at most ", max);
  if (!info.unit.empty()) absl::StrAppend(&expected, " ", std::string(info.unit));
  std::string nearest;
  if (value < info.min) nearest = min;
  if (value > info.max) nearest = max;
  checks.Add(ConfigErrorKind::kOutOfRange, key, text, expected, nearest);
}

}  // namespace

void ConfigChecks::Add(ConfigErrorKind kind, std::string_view key, std::string_view value, std::string_view expected,
                       std::string_view nearest) {
  Add({kind, std::string(key), absl::StrFormat("%s = %s: %s", key, value, expected),
       nearest.empty() ? "" : absl::StrFormat("nearest valid: %s", nearest)});
}

bool ConfigChecks::Ok(std::initializer_list<std::string_view> keys) const {
  for (const ConfigIssue& issue : issues_) {
    for (std::string_view key : keys) {
      if (issue.key == key) return false;
    }
  }
  return true;
}

void ConfigChecks::Divides(KeyedInt divisor, KeyedInt number) {
  if (!Ok({divisor.key, number.key}) || number.value % divisor.value == 0) return;
  Add(ConfigErrorKind::kIndivisible, divisor.key, absl::StrCat(divisor.value),
      absl::StrFormat("must divide %s = %d", number.key, number.value),
      absl::StrCat(NearestDivisor(number.value, divisor.value)));
}

void CheckLimits(std::string_view section, const ConfigField& field, ConfigChecks& checks) {
  const std::string key = absl::StrFormat("%s.%s", section, field.name);
  if (auto* integer = std::get_if<int64_t*>(&field.value)) {
    CheckNumber(key, static_cast<double>(**integer), absl::StrCat(**integer), true, field.info, checks);
  } else if (auto* real = std::get_if<double*>(&field.value)) {
    CheckNumber(key, **real, FormatDouble(**real), false, field.info, checks);
  } else if (auto* list = std::get_if<std::vector<double>*>(&field.value)) {
    for (double value : **list) CheckNumber(key, value, FormatDouble(value), false, field.info, checks);
  }
}

std::string FormatDouble(double value) {
  char buffer[32];
  const std::to_chars_result end = std::to_chars(buffer, buffer + sizeof(buffer), value);
  std::string text(buffer, end.ptr);
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

int64_t NearestDivisor(int64_t number, int64_t near) {
  int64_t best = 1;
  const auto consider = [&](int64_t d) {
    const int64_t distance = std::abs(d - near), best_distance = std::abs(best - near);
    if (distance < best_distance || (distance == best_distance && d < best)) best = d;
  };
  for (int64_t d = 1; d * d <= number; ++d) {
    if (number % d != 0) continue;
    consider(d);
    consider(number / d);
  }
  return best;
}

}  // namespace strata
