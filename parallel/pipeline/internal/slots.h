#pragma once
// How many buffers a stage needs so that micro-batches may take them in turn.

#include <vector>

#include "parallel/pipeline/lower.h"

namespace strata {

// While a buffer is in use: positions in its rank's list, both inclusive.
struct Use {
  int begin = -1, end = -1;
};

// For every (replica, stage), by the ordinal of the micro-batch.
using StageUses = std::vector<std::vector<std::vector<Use>>>;  // [replica][stage][ordinal]
struct SlotUses {
  StageUses inputs, activations, gradients;
};
SlotUses FindSlotUses(const Schedule& schedule, const std::vector<Edge>& edges,
                      const std::vector<std::vector<Action>>& actions);

// Whether ordinals that are alive together never share ordinal % slots.
bool SlotsSuffice(const std::vector<Use>& uses, int slots);
// The fewest that do: the peak where micro-batches end in the order in which they begin. 0 where nothing is used.
int FewestSlots(const std::vector<Use>& uses);

}  // namespace strata
