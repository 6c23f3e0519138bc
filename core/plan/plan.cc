#include "core/plan/plan.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/plan/edge_name.h"
#include "core/plan/memory.h"

namespace strata {

std::string ToString(const Action& a) {
  constexpr const char* kName[] = {"F",     "B",       "I",       "W",      "send ", "recv ",
                                   "copy ", "unshard", "reshard", "reduce", "norm",  "update"};
  std::string text = absl::StrFormat("%s%d", kName[a.kind], a.stage);
  if (a.micro_batch >= 0) absl::StrAppendFormat(&text, ".%d", a.micro_batch);
  if (a.replica > 0) absl::StrAppendFormat(&text, " of replica %d", a.replica);
  return text;
}

namespace {
constexpr const char* kShort[] = {"act", "grad"};  // by Edge::Kind
}
std::string ToString(const Edge& e) {
  return absl::StrFormat("%s%d->%d %s", std::string(kEdgePrefix), e.from, e.to,
                         e.kind == Edge::kActivation ? "activation" : "gradient");
}
std::string SendName(const Edge& e) { return absl::StrFormat("send.%s.%d.%d", kShort[e.kind], e.replica, e.stage); }
std::string RecvName(const Edge& e) {
  return absl::StrFormat("recv.%s.%d.%d", kShort[e.kind], e.replica, e.receiver());
}

int Program::SegmentOf(const Action& a) const {
  const auto it = std::find_if(segments.begin(), segments.end(), [&](const Segment& s) {
    return s.kind == a.kind && s.replica == a.replica && s.stage == a.stage && s.edge == a.edge;
  });
  return it == segments.end() ? -1 : static_cast<int>(it - segments.begin());
}

int Program::SlotOf(int16_t region, size_t action) const {
  const auto it = std::find_if(slots.begin(), slots.end(), [&](const Slots& s) { return s.region == region; });
  return it == slots.end() ? 0 : std::max<int>(0, it->by_action[action].slot);
}

std::string Program::Describe(const Action& a) const {
  std::string text = absl::StrFormat("%s %s", name, ToString(a));
  if (a.edge >= 0) absl::StrAppendFormat(&text, " over %s", ToString(edges[a.edge]));
  return text;
}

const Program* Plan::FindProgram(std::string_view name) const {
  const auto it = std::find_if(programs.begin(), programs.end(), [&](const Program& p) { return p.name == name; });
  return it == programs.end() ? nullptr : &*it;
}
const PlannedState* Plan::FindState(std::string_view name) const {
  const auto it = std::find_if(states.begin(), states.end(), [&](const PlannedState& s) { return s.name == name; });
  return it == states.end() ? nullptr : &*it;
}

void AlignCommunicators(std::span<Plan> plans) {
  std::vector<std::vector<CommSpec>> rounds;  // of groups that share no rank
  const auto meets = [](const CommSpec& a, const CommSpec& b) {
    return std::find_first_of(a.ranks.begin(), a.ranks.end(), b.ranks.begin(), b.ranks.end()) != a.ranks.end();
  };
  const auto add = [&](const CommSpec& comm) {
    if (comm.ranks.empty()) return;
    for (const auto& round : rounds) {
      if (std::find(round.begin(), round.end(), comm) != round.end()) return;
    }
    const auto free = std::find_if(rounds.begin(), rounds.end(), [&](const auto& round) {
      return std::none_of(round.begin(), round.end(), [&](const CommSpec& other) { return meets(comm, other); });
    });
    (free == rounds.end() ? rounds.emplace_back() : *free).push_back(comm);
  };
  size_t longest = 0;
  for (const Plan& p : plans) longest = std::max(longest, p.comms.size());
  for (size_t i = 0; i < longest; ++i) {
    for (const Plan& p : plans) {
      if (i < p.comms.size()) add(p.comms[i]);
    }
  }
  for (int rank = 0; rank < static_cast<int>(plans.size()); ++rank) {
    const std::vector<CommSpec> old = std::move(plans[rank].comms);
    std::vector<CommSpec>& comms = plans[rank].comms = {};
    for (const auto& round : rounds) {
      const auto mine = std::find_if(round.begin(), round.end(), [&](const CommSpec& c) {
        return std::find(c.ranks.begin(), c.ranks.end(), rank) != c.ranks.end();
      });
      comms.push_back(mine == round.end() ? CommSpec{} : *mine);
    }
    for (Program& program : plans[rank].programs) {
      for (Segment& segment : program.segments) {
        for (Step& step : segment.steps) {
          if (step.comm < 0) continue;
          const auto at = std::find(comms.begin(), comms.end(), old[step.comm]);
          step.comm = static_cast<int16_t>(at - comms.begin());
        }
      }
    }
  }
}

std::vector<Action> TrainActions(int micro_batches) {
  std::vector<Action> actions;
  for (int m = 0; m < micro_batches; ++m) {
    actions.push_back({.kind = Action::kF, .micro_batch = m});
    actions.push_back({.kind = Action::kB, .micro_batch = m});
  }
  actions.push_back({.kind = Action::kUpdate});
  return actions;
}
std::vector<Action> ForwardActions() { return {{.kind = Action::kF, .micro_batch = 0}}; }

}  // namespace strata
