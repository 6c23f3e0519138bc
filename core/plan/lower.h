#pragma once
// One program: graph nodes -> steps in segments, and the storage of every value by liveness.

#include <map>
#include <vector>

#include "core/plan/plan.h"

namespace strata {

struct LowerContext {
  const Mesh& mesh;
  const KernelTable& kernels;
  std::map<std::string, const PlannedState*> states;  // by name
  std::vector<CommSpec>& comms;                       // grows
  std::vector<Region>& regions;                       // grows: slots, transient, outputs, workspace of this program
  int row_groups = 1;
  bool exchange = false;
  bool overlap = false;  // what a collective works on is kept up to the next one, so that it may take so long
};
absl::StatusOr<Program> LowerProgram(const ProgramSpec& spec, int program_index, LowerContext& context);

}  // namespace strata
