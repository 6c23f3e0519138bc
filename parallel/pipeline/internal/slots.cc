#include "parallel/pipeline/internal/slots.h"

#include <algorithm>

#include "parallel/pipeline/timeline.h"

namespace strata {

SlotUses FindSlotUses(const Schedule& schedule, const std::vector<Edge>& edges,
                      const std::vector<std::vector<Action>>& actions) {
  const StageUses empty(schedule.replicas,
                        std::vector<std::vector<Use>>(
                            schedule.stages(), std::vector<Use>(schedule.micro_batches / schedule.replicas + 1)));
  SlotUses all{empty, empty, empty};
  for (const std::vector<Action>& list : actions) {
    for (int i = 0; i < static_cast<int>(list.size()); ++i) {
      const Action& a = list[i];
      if (a.micro_batch < 0 || a.kind == Action::kSend) continue;
      const int ordinal = OrdinalOf(schedule, a.micro_batch);
      const auto use = [&](StageUses& uses, int stage) -> Use& { return uses[a.replica][stage][ordinal]; };
      const auto begin = [&](StageUses& uses, int stage) {
        Use& u = use(uses, stage);
        if (u.begin < 0) u.begin = i;
        u.end = i;
      };
      if (a.kind == Action::kRecv || a.kind == Action::kCopyLocal) {
        const Edge& edge = edges[a.edge];
        begin(edge.kind == Edge::kActivation ? all.inputs : all.gradients, edge.receiver());
      } else if (a.kind == Action::kF) {
        begin(all.inputs, a.stage);
        begin(all.activations, a.stage);
      } else if (IsCompute(a)) {
        use(all.inputs, a.stage).end = use(all.activations, a.stage).end = i;
        if (a.stage < schedule.stages() - 1) begin(all.gradients, a.stage);
      }
    }
  }
  for (StageUses* uses : {&all.inputs, &all.activations, &all.gradients}) {  // unused ordinals are the last ones
    for (auto& replica : *uses) {
      for (auto& stage : replica) {
        while (!stage.empty() && stage.back().begin < 0) stage.pop_back();
      }
    }
  }
  return all;
}

bool SlotsSuffice(const std::vector<Use>& uses, int slots) {
  if (uses.empty()) return true;
  if (slots < 1) return false;
  std::vector<Use> lane;
  for (int first = 0; first < slots; ++first) {
    lane.clear();
    for (size_t k = first; k < uses.size(); k += slots) lane.push_back(uses[k]);
    std::sort(lane.begin(), lane.end(), [](const Use& a, const Use& b) { return a.begin < b.begin; });
    for (size_t k = 1; k < lane.size(); ++k) {
      if (lane[k].begin <= lane[k - 1].end) return false;
    }
  }
  return true;
}

int FewestSlots(const std::vector<Use>& uses) {
  if (uses.empty()) return 0;
  std::vector<std::pair<int, int>> changes;
  for (const Use& u : uses) {
    changes.emplace_back(u.begin, 1);
    changes.emplace_back(u.end + 1, -1);
  }
  std::sort(changes.begin(), changes.end());
  int alive = 0, peak = 0;
  for (const auto& [at, change] : changes) peak = std::max(peak, alive += change);
  while (!SlotsSuffice(uses, peak)) ++peak;
  return peak;
}

}  // namespace strata
