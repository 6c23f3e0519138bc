#pragma once
// Pins: what a layout table says of named tensors. Immutable values.

#include <span>
#include <string>
#include <string_view>

#include "core/mesh/mesh.h"

namespace strata {

// One line of the table: tensors whose name matches `pattern` have this placement on mesh axis `axis`. '*' matches any
// run of characters, dots too. Axis "tp" also means the factors "tp.o" and "tp.i". Axes that the mesh lacks are
// ignored. Names are those of graph inputs, states, named values and graph outputs. {"blocks.*.wq", "tp", Shard(0)}.
struct Pin {
  std::string pattern, axis;
  Placement placement;
};

// The first pin that matches; null if there is none.
const Pin* FindPin(std::span<const Pin> pins, std::string_view name, std::string_view axis);
bool PinsName(std::span<const Pin> pins, std::string_view axis);  // one of them is of this axis

}  // namespace strata
