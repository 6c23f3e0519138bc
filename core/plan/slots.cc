#include "core/plan/slots.h"

#include <algorithm>
#include <map>

namespace strata {
namespace {

class FreeSlots {
 public:
  int16_t Take() {
    const auto free = std::find(taken_.begin(), taken_.end(), false);
    const auto slot = static_cast<int16_t>(free - taken_.begin());
    if (free == taken_.end()) taken_.push_back(true);
    taken_[slot] = true;
    return slot;
  }
  void Return(int16_t slot) { taken_[slot] = false; }

 private:
  std::vector<bool> taken_;
};

using StageKey = std::pair<int16_t, int16_t>;  // replica, stage

std::vector<StageKey> StagesOf(const Action& a, std::span<const Edge> edges, HeldFrom from) {
  if (a.kind > Action::kCopyLocal) return {};
  const StageKey stage{a.replica, a.stage};
  if (a.edge < 0) return {stage};
  const bool forward = edges[a.edge].kind == Edge::kActivation, arrival = from == HeldFrom::kArrival;
  const bool sends = a.kind != Action::kRecv, receives = a.kind != Action::kSend;
  const StageKey receiver{a.replica, static_cast<int16_t>(edges[a.edge].receiver())};
  std::vector<StageKey> stages;
  if (sends && (forward || !arrival)) stages.push_back(stage);  // the gradient that is sent is no part of the input
  if (receives && (!forward || arrival)) stages.push_back(receiver);
  return stages;
}

}  // namespace

std::vector<Slots> StageSlots(std::span<const Action> actions, std::span<const Edge> edges, HeldFrom from) {
  std::map<StageKey, std::map<int32_t, size_t>> last;  // action, by micro-batch
  for (size_t i = 0; i < actions.size(); ++i) {
    for (const StageKey& stage : StagesOf(actions[i], edges, from)) last[stage][actions[i].micro_batch] = i;
  }
  std::vector<Slots> all;
  for (const auto& [stage, ends] : last) {
    Slots slots{.replica = stage.first, .stage = stage.second, .by_action = std::vector<Slots::Use>(actions.size())};
    FreeSlots free;
    std::map<int32_t, int16_t> held;  // by micro-batch
    for (size_t i = 0; i < actions.size(); ++i) {
      const std::vector<StageKey> touched = StagesOf(actions[i], edges, from);
      if (std::find(touched.begin(), touched.end(), stage) == touched.end()) continue;
      const int32_t m = actions[i].micro_batch;
      if (!held.contains(m)) held[m] = free.Take();
      slots.by_action[i] = {held[m], ends.at(m) == i};
      if (ends.at(m) == i) free.Return(held[m]);
    }
    all.push_back(std::move(slots));
  }
  return all;
}

Slots UnshardedSlots(std::span<const Action> actions) {
  Slots slots{.replica = -1, .stage = -1, .by_action = std::vector<Slots::Use>(actions.size())};
  FreeSlots free;
  std::map<int16_t, int16_t> held;  // by stage
  for (size_t i = 0; i < actions.size(); ++i) {
    const Action& a = actions[i];
    if (a.kind == Action::kUnshard && !held.contains(a.stage)) held[a.stage] = free.Take();
    const auto it = held.find(a.stage);
    if (it == held.end() || a.kind == Action::kReduce || a.kind == Action::kUpdate) continue;
    slots.by_action[i] = {it->second, a.kind == Action::kReshard};
    if (a.kind != Action::kReshard) continue;
    free.Return(it->second);
    held.erase(it);
  }
  return slots;
}

int NumSlots(const Slots& slots) {
  int n = 0;
  for (const Slots::Use& use : slots.by_action) n = std::max(n, use.slot + 1);
  return n;
}

}  // namespace strata
