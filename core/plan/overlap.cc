#include "core/plan/overlap.h"

#include <algorithm>
#include <functional>
#include <map>
#include <queue>

#include "core/plan/access_order.h"

namespace strata {
namespace {

constexpr int kCompute = 0;  // the stream

struct
    Item {  // a step of an action, its inputs (IssuedStep::kFeed), or the reading of the outputs (IssuedStep::kOutputs)
  int32_t action = 0, step = 0;
  const Step* code = nullptr;
  int16_t stream = kCompute;
  std::vector<AccessOrder::After> after;  // items of this run, in rising order, each once
  std::vector<int> after_last_run;        // items of the run before
  std::vector<int> then;                  // the items of this run that come after it

  bool IsCollective() const { return code != nullptr && code->kind == Step::kCollective; }
  bool EndsCollective() const { return code != nullptr && code->comm >= 0; }    // it is one, or the sum after it
  bool Moves() const { return code != nullptr && code->workspace_bytes == 0; }  // the workspace is compute's
};

class Overlapper {
 public:
  Overlapper(Plan& plan, Program& program, std::span<const int> alike)
      : plan_(plan), program_(program), alike_(alike) {}

  void Run() {
    MakeItems();
    FindOrder();
    ChooseStreams();
    const std::vector<int> order = Schedule();
    SetIssues(order);
  }

 private:
  const Action& ActionOf(const Item& i) const { return program_.actions[i.action]; }

  void MakeItems() {
    for (size_t a = 0; a < program_.actions.size(); ++a) {
      const Action& action = program_.actions[a];
      const int segment = program_.SegmentOf(action);
      if (segment < 0) continue;
      const auto at = static_cast<int32_t>(a);
      const bool fed = std::any_of(program_.inputs.begin(), program_.inputs.end(), [&](const Port& p) {
        return p.replica == action.replica && p.stage == action.stage;
      });
      if (action.kind == Action::kF && fed) items_.push_back({.action = at, .step = IssuedStep::kFeed});
      const std::vector<Step>& steps = program_.segments[segment].steps;
      for (size_t s = 0; s < steps.size(); ++s) {
        items_.push_back({.action = at, .step = static_cast<int32_t>(s), .code = &steps[s]});
      }
    }
    if (!program_.actions.empty()) {
      items_.push_back({.action = static_cast<int32_t>(program_.actions.size()) - 1, .step = IssuedStep::kOutputs});
    }
  }

  std::pair<int64_t, int64_t> RangeOf(const Operand& o, int32_t action) const {
    const Region& r = plan_.regions[o.ref.region];
    const int64_t begin = (int64_t{static_cast<int>(r.tier)} << 56) + r.offset +
                          program_.SlotOf(o.ref.region, static_cast<size_t>(action)) * r.bytes + o.ref.offset;
    return {begin, begin + o.view.bytes()};
  }

  // The order of two runs in a row: what the second one's items come after.
  void FindOrder() {
    const int n = static_cast<int>(items_.size());
    AccessOrder memory;
    std::vector<AccessOrder::After> after;
    for (int run = 0; run < 2; ++run) {
      for (int i = 0; i < n; ++i) {
        Item& item = items_[i];
        after.clear();
        const auto access = [&](const Operand& o, bool writes) {
          const auto [begin, end] = RangeOf(o, item.action);
          writes ? memory.Write(run * n + i, begin, end, after) : memory.Read(run * n + i, begin, end, after);
        };
        if (item.step == IssuedStep::kFeed) {
          const Action& a = ActionOf(item);
          for (const Port& p : program_.inputs) {
            if (p.replica == a.replica && p.stage == a.stage) access(p.operand, true);
          }
        } else if (item.step == IssuedStep::kOutputs) {
          for (const Port& p : program_.outputs) access(p.operand, false);
        } else {
          for (const Operand& o : item.code->in) access(o, false);
          for (const Operand& o : item.code->out) access(o, true);
        }
        if (run == 1) Keep(item, after, n);
      }
    }
    for (int i = 0; i < n; ++i) {
      for (const AccessOrder::After& a : items_[i].after) items_[a.item].then.push_back(i);
    }
  }

  static void Keep(Item& item, std::vector<AccessOrder::After>& after, int n) {
    std::sort(after.begin(), after.end(), [](const auto& a, const auto& b) {
      return std::pair(a.item, !a.reads_it) < std::pair(b.item, !b.reads_it);
    });
    int last = -1;
    for (const AccessOrder::After& a : after) {
      if (a.item == last) continue;
      last = a.item;
      if (a.item < n) {
        item.after_last_run.push_back(a.item);
      } else {
        item.after.push_back({a.item - n, a.reads_it});
      }
    }
  }

  int16_t StreamOf(const std::string& name, Priority priority) {
    for (size_t s = 0; s < plan_.streams.size(); ++s) {
      if (plan_.streams[s].name == name) return static_cast<int16_t>(s);
    }
    plan_.streams.push_back({name, priority});
    return static_cast<int16_t>(plan_.streams.size() - 1);
  }

  void ChooseStreams() {
    for (Item& i : items_) {
      if (i.EndsCollective()) i.stream = StreamOf("collectives " + plan_.comms[i.code->comm].name, Priority::kHigh);
    }
    for (size_t i = 0; i < items_.size(); ++i) {
      if (items_[i].stream != kCompute) continue;
      if (const int leader = LeaderOf(static_cast<int>(i)); leader >= 0) items_[i].stream = items_[leader].stream;
    }
    std::vector<bool> leaves(items_.size());  // nothing on the compute stream needs it before the next run
    for (size_t k = items_.size(); k-- > 0;) {
      Item& i = items_[k];
      const bool may = i.IsCollective() || (i.Moves() && ActionOf(i).kind == Action::kUpdate);
      leaves[k] = may && std::all_of(i.then.begin(), i.then.end(), [&](int t) { return leaves[t]; });
      if (leaves[k] && i.stream == kCompute) i.stream = StreamOf("update", Priority::kLow);
    }
  }

  // The collective of the same action that a launch follows on its stream; -1: none.
  int LeaderOf(int index) const {
    const Item& item = items_[index];
    if (item.IsCollective() || !item.Moves()) return -1;
    for (int t : item.then) {
      const auto& after = items_[t].after;
      const bool reads = std::any_of(after.begin(), after.end(),
                                     [&](const AccessOrder::After& a) { return a.item == index && a.reads_it; });
      if (reads && items_[t].action == item.action) return -1;
    }
    for (const AccessOrder::After& a : item.after) {
      const Item& leader = items_[a.item];
      if (a.reads_it && leader.action == item.action && leader.EndsCollective() && ActionOf(leader).edge < 0)
        return a.item;
    }
    return -1;
  }

  // Whether an item must stay behind all actions before its own.
  bool StaysBehind(const Item& i) const {
    if (!i.IsCollective()) return false;
    if (ActionOf(i).edge >= 0) return true;
    const std::vector<int>& ranks = plan_.comms[i.code->comm].ranks;
    return std::any_of(ranks.begin(), ranks.end(),
                       [&](int r) { return std::find(alike_.begin(), alike_.end(), r) == alike_.end(); });
  }

  // Items in order of issue. Those of the compute stream in their order; the others as soon as they can be.
  std::vector<int> Schedule() const {
    const int n = static_cast<int>(items_.size());
    std::vector<int> missing, order;
    for (const Item& i : items_) missing.push_back(static_cast<int>(i.after.size()));
    std::priority_queue<int, std::vector<int>, std::greater<>> ready;  // of other streams
    std::map<int, std::vector<int>> held;                              // by the action that they wait for
    int action = -1;                                                   // of the last compute item
    const auto becomes_ready = [&](int i) {
      if (items_[i].stream == kCompute) return;
      if (StaysBehind(items_[i]) && items_[i].action > action) {
        held[items_[i].action].push_back(i);
      } else {
        ready.push(i);
      }
    };
    const auto issue = [&](int i) {
      order.push_back(i);
      for (int t : items_[i].then) {
        if (--missing[t] == 0) becomes_ready(t);
      }
    };
    const auto issue_ready = [&] {
      while (!ready.empty()) {
        const int i = ready.top();
        ready.pop();
        issue(i);
      }
    };
    const auto enter = [&](int next) {  // all actions before `next` are issued
      action = next;
      while (!held.empty() && held.begin()->first <= next) {
        for (int i : held.begin()->second) ready.push(i);
        held.erase(held.begin());
        issue_ready();
      }
    };
    for (int i = 0; i < n; ++i) {
      if (missing[i] == 0) becomes_ready(i);
    }
    issue_ready();
    for (int i = 0; i < n; ++i) {
      if (items_[i].action > action) {
        for (int a = action + 1; a <= items_[i].action; ++a) enter(a);
      }
      issue_ready();
      if (items_[i].stream == kCompute) {
        issue(i);
        issue_ready();
      }
    }
    return order;
  }

  void SetIssues(const std::vector<int>& order) {
    const int n = static_cast<int>(order.size()), streams = static_cast<int>(plan_.streams.size());
    std::vector<int> place(n);  // of an item in the order
    for (int k = 0; k < n; ++k) place[order[k]] = k;
    for (int i : order) program_.issues.push_back({items_[i].action, items_[i].step, items_[i].stream});

    // What a stream knows to be done: of every stream, up to which place of two runs in a row.
    using Known = std::vector<int>;
    std::vector<Known> now(streams, Known(streams, -1)), at(2 * static_cast<size_t>(n));
    for (int k = 0; k < 2 * n; ++k) {
      const Item& item = items_[order[k % n]];
      Known& known = now[item.stream];
      std::vector<int> needs;
      for (const AccessOrder::After& a : item.after) needs.push_back(k / n * n + place[a.item]);
      if (k >= n) {
        for (int i : item.after_last_run) needs.push_back(place[i]);
      }
      std::sort(needs.rbegin(), needs.rend());
      for (int p : needs) {
        const int16_t stream = items_[order[p % n]].stream;
        if (stream == item.stream || known[stream] >= p) continue;
        for (int s = 0; s < streams; ++s) known[s] = std::max(known[s], at[p][s]);
        if (k >= n) Wait(program_.issues[k % n], program_.issues[p % n]);
      }
      known[item.stream] = k;
      at[k] = known;
    }
  }

  void Wait(IssuedStep& waits, IssuedStep& records) {
    if (records.record < 0) records.record = plan_.events++;
    waits.waits.push_back(records.record);
  }

  Plan& plan_;
  Program& program_;
  const std::span<const int> alike_;
  std::vector<Item> items_;
};

}  // namespace

void OverlapSteps(Plan& plan, std::span<const int> alike) {
  for (Program& program : plan.programs) Overlapper(plan, program, alike).Run();
}

}  // namespace strata
