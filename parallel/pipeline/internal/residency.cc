#include "parallel/pipeline/internal/residency.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/pipeline/timeline.h"

namespace strata {
namespace {

using Key = std::pair<int16_t, int16_t>;  // replica, stage

class Residency {
 public:
  Residency(const std::vector<Action>& list, int limit) : list_(list), limit_(limit) {
    for (size_t i = 0; i < list.size();) {
      const size_t end = GroupEnd(list, i);
      if (IsCompute(list[i])) {
        Unit unit{.first = i, .end = end};
        for (size_t k = i; k < end; ++k) unit.needs.insert({list[k].replica, list[k].stage});
        for (const Key& key : unit.needs) uses_[key].push_back(units_.size());
        units_.push_back(std::move(unit));
      }
      i = end;
    }
  }

  absl::StatusOr<std::vector<Action>> Run() {
    size_t next_in_list = 0;
    for (size_t u = 0; u < units_.size(); ++u) {
      const Unit& unit = units_[u];
      if (static_cast<int>(unit.needs.size()) > limit_) {
        return absl::InvalidArgumentError(absl::StrFormat(
            "%s is issued together with an action of another stage: resident_stages = %d must be at least %d",
            ToString(list_[unit.first]), limit_, unit.needs.size()));
      }
      while (next_in_list < unit.first) out_.push_back(list_[next_in_list++]);
      std::set<Key> keep = unit.needs;
      for (const Key& key : unit.needs) Gather(key, u, keep);
      if (u + 1 < units_.size()) {  // early, beside this unit's compute
        keep.insert(units_[u + 1].needs.begin(), units_[u + 1].needs.end());
        if (static_cast<int>(keep.size()) <= limit_) {
          for (const Key& key : units_[u + 1].needs) Gather(key, u, keep);
        }
      }
      while (next_in_list < unit.end) out_.push_back(list_[next_in_list++]);
      for (const Key& key : unit.needs) {
        if (NextUse(key, u + 1) == kNotAgain) Drop(key);
      }
    }
    while (next_in_list < list_.size()) out_.push_back(list_[next_in_list++]);
    return std::move(out_);
  }

 private:
  static constexpr size_t kNotAgain = std::numeric_limits<size_t>::max();
  struct Unit {
    size_t first = 0, end = 0;  // in the list
    std::set<Key> needs;
  };

  size_t NextUse(const Key& key, size_t from) const {
    const std::vector<size_t>& uses = uses_.at(key);
    const auto it = std::lower_bound(uses.begin(), uses.end(), from);
    return it == uses.end() ? kNotAgain : *it;
  }
  void Drop(const Key& key) {
    resident_.erase(key);
    out_.push_back({.kind = Action::kReshard, .replica = key.first, .stage = key.second});
  }
  void Gather(const Key& key, size_t now, const std::set<Key>& keep) {
    if (resident_.contains(key)) return;
    if (static_cast<int>(resident_.size()) == limit_) {
      const Key* latest = nullptr;
      for (const Key& other : resident_) {
        if (keep.contains(other)) continue;
        if (latest == nullptr || NextUse(other, now) > NextUse(*latest, now)) latest = &other;
      }
      Drop(Key(*latest));
    }
    resident_.insert(key);
    out_.push_back({.kind = Action::kUnshard, .replica = key.first, .stage = key.second});
  }

  const std::vector<Action>& list_;
  const int limit_;
  std::vector<Unit> units_;
  std::map<Key, std::vector<size_t>> uses_;  // units, ascending
  std::set<Key> resident_;
  std::vector<Action> out_;
};

}  // namespace

absl::StatusOr<std::vector<Action>> AddResidency(const std::vector<Action>& list, int resident_stages) {
  return Residency(list, resident_stages).Run();
}

}  // namespace strata
