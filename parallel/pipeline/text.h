#pragma once
// Schedules as text, to be read, compared and written by hand. A row a rank, a cell an action: stage, F B I or W,
// micro-batch; cells are separated by commas or blanks.
//
//   # 1f1b
//   0F0,0F1,0B0,0B1
//   1F0,1B0,1F1,1B1
//
// "1F2+0B3" is a pair that is issued together. Lines that begin with # are comments, apart from "# replicas = 2": then
// micro-batch i belongs to replica i mod 2. What lies where follows: a stage is on the rank in whose row it is.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/schedule.h"

namespace strata {

std::string DumpSchedule(const Schedule& schedule);

// A valid schedule. Errors: InvalidArgument with line and cell; those of ValidateSchedule.
absl::StatusOr<Schedule> ParseSchedule(std::string_view text, std::string name);

// Lowered lists, a row a rank, for reading: "0F0 0sendF0>1" (the activation, to rank 1), "1recvF0<0", "1sendB0>0"
// (the gradient), "3copyF0", "2unshard", "2reshard", "2reduce", "update"; groups that may be issued together in brackets.
std::string DumpLowered(const LoweredSchedule& lowered);

}  // namespace strata
