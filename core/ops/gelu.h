#pragma once
// Gaussian error linear units, elementwise. Source: Hendrycks and Gimpel, arXiv:1606.08415.
//   kErf:  x (1 + erf(x / sqrt 2)) / 2                                     as in BERT
//   kTanh: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2              as in GPT-2
// Sharding: every dim may be sharded; Partial does not pass.

#include <cstdint>

#include "core/graph/builder.h"

namespace strata {

enum class GeluKind : uint8_t { kErf, kTanh };

Value Gelu(GraphBuilder& g, Value x, GeluKind kind, SourceLoc loc = SourceLoc::Here());
Value GeluDx(GraphBuilder& g, Value dy, Value x, GeluKind kind, SourceLoc loc = SourceLoc::Here());  // dy gelu'(x)

GeluKind GeluKindOf(const Op& op);  // of a "gelu" or "gelu_dx"; for their kernels

}  // namespace strata
