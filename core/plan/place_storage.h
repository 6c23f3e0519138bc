#pragma once
// Where the scratch memory of a program lies: slots for what a micro-batch leaves on a stage, the rest by use.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/plan/plan.h"
#include "core/plan/stations.h"
#include "core/plan/storage.h"

namespace strata {

struct PlaceArgs {
  const std::string& program;
  const Stations& stations;
  std::vector<int> num_steps;  // by position
  int64_t workspace_bytes = 0;
};

// Gives every used storage an address and appends the regions, the workspace last. `slots`: of each stage's activations, of
// each stage's input, of unsharded parameters; the region stays -1 where there is nothing of the kind. Errors: Internal where a value of a micro-batch is used once a step, or the other way round.
absl::Status PlaceStorages(std::vector<Storage>& storages, const PlaceArgs& args, std::vector<Slots>& slots,
                           std::vector<Region>& regions);

}  // namespace strata
