#include "parallel/shard/pins.h"

#include <algorithm>

#include "core/base/glob.h"

namespace strata {
namespace {

// "tp" names tp, tp.o and tp.i.
bool NamesAxis(std::string_view pin, std::string_view axis) {
  if (axis.substr(0, pin.size()) != pin) return false;
  return axis.size() == pin.size() || axis[pin.size()] == '.';
}

}  // namespace

const Pin* FindPin(std::span<const Pin> pins, std::string_view name, std::string_view axis) {
  for (const Pin& pin : pins) {
    if (NamesAxis(pin.axis, axis) && GlobMatches(pin.pattern, name)) return &pin;
  }
  return nullptr;
}

bool PinsName(std::span<const Pin> pins, std::string_view axis) {
  return std::any_of(pins.begin(), pins.end(), [&](const Pin& pin) { return NamesAxis(pin.axis, axis); });
}

}  // namespace strata
