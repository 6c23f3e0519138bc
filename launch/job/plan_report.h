#pragma once
// What `strata plan` and the head of a run print: size, work, exact memory by class, outside memory estimated apart, time.

#include <span>
#include <string>
#include <vector>

#include "core/plan/plan.h"
#include "launch/job/compile.h"

namespace strata {

// flops_per_s: of the whole machine, measured; 0 leaves the time out.
std::string PlanReport(const Job& job, const std::vector<Plan>& plans, double flops_per_s, PrintDetail detail);

// Achieved float32 or float64 matmul rate of this machine's cores together, from about 50 ms of GEMM.
double MeasureFlops(DType dtype, int threads);

}  // namespace strata
