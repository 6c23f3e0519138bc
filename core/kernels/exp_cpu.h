#pragma once
// x[i] = exp(x[i]) for arrays. The same bits on every CPU and whatever the length and alignment.
// float: relative error below 2e-7; results below 2^-126 become 0, arguments above 88.37 give infinity; NaN stays NaN.
// Source: S. Moshier, Cephes, expf.

#include <cstdint>

namespace strata {

void ExpInPlace(float* x, int64_t n);
void ExpInPlace(double* x, int64_t n);

}  // namespace strata
