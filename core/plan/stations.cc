#include "core/plan/stations.h"

#include <algorithm>
#include <set>

namespace strata {
namespace {

bool IsOfMicroBatch(Action::Kind kind) { return kind <= Action::kCopyLocal; }

}  // namespace

Stations::Stations(const ProgramSpec& spec) {
  std::set<std::pair<int16_t, int16_t>> seen;
  for (const Action& a : spec.actions) {
    if (!IsOfMicroBatch(a.kind)) continue;
    seen.insert({a.replica, a.stage});
    if (a.kind == Action::kCopyLocal) seen.insert({a.replica, static_cast<int16_t>(spec.edges[a.edge].receiver())});
  }
  for (const auto& [replica, stage] : seen) stages_.push_back({.replica = replica, .stage = stage});
  for (const Action& a : spec.actions) {
    updates_ |= a.kind == Action::kUpdate;
    const int stage =
        a.kind == Action::kUnshard || a.kind == Action::kReshard ? FindUnsharded(a.stage) : Find(a.replica, a.stage);
    if (stage >= 0) stages_[stage].kinds |= 1U << a.kind;
  }
  NoteSends(spec);
}

void Stations::NoteSends(const ProgramSpec& spec) {
  std::set<std::pair<int, int32_t>> weights_done;  // stage, micro-batch
  for (const Action& a : spec.actions) {
    const int stage = Find(a.replica, a.stage);
    if (stage < 0 || !stages_[stage].splits()) continue;
    if (a.kind == Action::kB || a.kind == Action::kW) weights_done.insert({stage, a.micro_batch});
    const bool sends = a.kind == Action::kSend || a.kind == Action::kCopyLocal;
    if (!sends || spec.edges[a.edge].kind != Edge::kGradient) continue;
    (weights_done.contains({stage, a.micro_batch}) ? stages_[stage].late : stages_[stage].early) = true;
  }
}

int Stations::Find(int replica, int stage) const {
  const auto it = std::find_if(stages_.begin(), stages_.end(),
                               [&](const Stage& s) { return s.replica == replica && s.stage == stage; });
  return it == stages_.end() ? -1 : static_cast<int>(it - stages_.begin());
}

int Stations::FindUnsharded(int stage) const {
  const auto it = std::find_if(stages_.begin(), stages_.end(), [&](const Stage& s) { return s.stage == stage; });
  return it == stages_.end() ? -1 : static_cast<int>(it - stages_.begin());
}

bool Stations::OfMicroBatch(int position) const {
  return position != update() && StationOf(position) != kUnshard && StationOf(position) != kReduce;
}

int Stations::Of(const Node& n) const {
  const int at = StageOf(n);
  if (n.phase == Phase::kStep || (n.phase == Phase::kReduce && (at < 0 || !stages_[at].Has(Action::kReduce)))) {
    return updates_ ? update() : -1;
  }
  if (at < 0) return -1;
  const Stage& stage = stages_[at];
  const bool has_b = stage.Has(Action::kB);
  switch (n.phase) {
    case Phase::kUnshard: return stage.Has(Action::kUnshard) ? At(at, kUnshard) : -1;
    case Phase::kForward: return stage.Has(Action::kF) ? At(at, kForward) : -1;
    case Phase::kInputGrad: return has_b || stage.Has(Action::kI) ? At(at, kInputGrad) : -1;
    case Phase::kWeightGrad:
      if (!stage.splits()) return has_b ? At(at, kInputGrad) : -1;
      return has_b || stage.Has(Action::kW) ? At(at, kWeightGrad) : -1;
    default: return At(at, kReduce);
  }
}

int Stations::SendOf(const Edge& e) const {
  const int stage = Find(e.replica, e.stage);
  if (stage < 0) return -1;
  if (e.kind == Edge::kActivation) return At(stage, kSendActivation);
  return At(stage, stages_[stage].late ? kSendGradientLate : kSendGradient);
}

int Stations::ReceiveOf(const Edge& e) const {
  const int stage = Find(e.replica, e.receiver());
  return stage < 0 ? -1 : At(stage, e.kind == Edge::kActivation ? kReceiveActivation : kReceiveGradient);
}

std::vector<int> Stations::CodeOf(const Action& a) const {
  if (a.kind == Action::kUpdate) return {update()};
  const int stage = a.kind == Action::kUnshard ? FindUnsharded(a.stage) : Find(a.replica, a.stage);
  if (stage < 0) return {};
  switch (a.kind) {
    case Action::kF: return {At(stage, kForward)};
    case Action::kI: return {At(stage, kInputGrad)};
    case Action::kW: return {At(stage, kWeightGrad)};
    case Action::kB:
      if (!stages_[stage].splits()) return {At(stage, kInputGrad)};
      return {At(stage, kInputGrad), At(stage, kWeightGrad)};
    case Action::kUnshard: return {At(stage, kUnshard)};
    case Action::kReduce: return {At(stage, kReduce)};
    default: return {};
  }
}

}  // namespace strata
