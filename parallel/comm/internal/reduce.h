#pragma once
// Reduction of host buffers, element by element in the order of the inputs: the bits depend on that order only.

#include <cstdint>
#include <span>

#include "core/mesh/mesh.h"
#include "core/tensor/tensor.h"

namespace strata::internal {

// out[i] = in[0][first + i] (+ | max) in[1][first + i] ... for i in [0, count). Accumulates in float32 for bf16, in int64
// for integers, else in the dtype itself; one rounding at the end. kMax keeps a NaN. `out` may be element `first` of one of
// the inputs. Thread-safe.
void Reduce(ReduceOp op, DType dtype, std::span<const void* const> in, int64_t first, int64_t count, void* out);

}  // namespace strata::internal
