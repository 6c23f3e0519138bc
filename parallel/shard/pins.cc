#include "parallel/shard/pins.h"

namespace strata {
namespace {

// "tp" names tp, tp.o and tp.i.
bool NamesAxis(std::string_view pin, std::string_view axis) {
  if (axis.substr(0, pin.size()) != pin) return false;
  return axis.size() == pin.size() || axis[pin.size()] == '.';
}

}  // namespace

bool MatchesPattern(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {  // let the last star take one more character
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

const Pin* FindPin(std::span<const Pin> pins, std::string_view name, std::string_view axis) {
  for (const Pin& pin : pins) {
    if (NamesAxis(pin.axis, axis) && MatchesPattern(pin.pattern, name)) return &pin;
  }
  return nullptr;
}

}  // namespace strata
