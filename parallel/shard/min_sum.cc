#include "parallel/shard/min_sum.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"

namespace strata {
namespace {

constexpr int64_t kMaxTable = 1 << 24;

// Distance in `table` between neighbouring values of each of `variables`; 0 for those that it does not have.
std::vector<int64_t> StridesOver(const std::vector<int>& variables, const std::vector<int>& table,
                                 const std::vector<int>& domain) {
  std::vector<int64_t> strides(variables.size(), 0);
  int64_t stride = 1;
  for (size_t i = table.size(); i-- > 0;) {
    const auto it = std::find(variables.begin(), variables.end(), table[i]);
    strides[it - variables.begin()] = stride;
    stride *= domain[table[i]];
  }
  return strides;
}

}  // namespace

int MinSum::AddVariable(int domain) {
  STRATA_CHECK(domain > 0);
  domain_.push_back(domain);
  tables_of_.emplace_back();
  return static_cast<int>(domain_.size()) - 1;
}

void MinSum::AddTable(const std::vector<int>& variables, std::vector<double> costs) {
  Table t;
  size_t size = 1;
  for (int v : variables) {
    size *= domain_[v];
    if (domain_[v] > 1) t.variables.push_back(v);  // the others do not change the order of costs
  }
  STRATA_CHECK(size == costs.size());
  if (t.variables.empty()) return;
  t.costs = std::move(costs);
  for (int v : t.variables) tables_of_[v].push_back(static_cast<int>(tables_.size()));
  tables_.push_back(std::move(t));
}

std::vector<int> MinSum::Neighbours(int variable) const {
  std::set<int> found;
  for (int t : tables_of_[variable]) found.insert(tables_[t].variables.begin(), tables_[t].variables.end());
  found.erase(variable);
  return {found.begin(), found.end()};
}

int64_t MinSum::Width(int variable) const {
  int64_t width = domain_[variable];
  for (int v : Neighbours(variable)) width = std::min(kMaxTable + 1, width * domain_[v]);
  return width;
}

absl::StatusOr<std::vector<int>> MinSum::Solve() && {
  struct Eliminated {
    int variable;
    std::vector<int> neighbours, best;  // best value by the neighbours' values, row-major
  };
  std::vector<Eliminated> order;
  std::set<std::pair<int64_t, int>> open;
  std::vector<int64_t> width(domain_.size(), 0);
  for (int v = 0; v < static_cast<int>(domain_.size()); ++v) {
    if (domain_[v] > 1) open.insert({width[v] = Width(v), v});
  }
  while (!open.empty()) {
    const auto [size, variable] = *open.begin();
    open.erase(open.begin());
    if (size > kMaxTable) return absl::ResourceExhaustedError("too many placements depend on one another");
    Eliminated e{variable, Neighbours(variable), {}};
    std::vector<int> joint = e.neighbours;
    joint.push_back(variable);
    std::vector<double> sum(size, 0.0);
    for (int t : std::vector<int>(tables_of_[variable])) {
      const std::vector<int64_t> strides = StridesOver(joint, tables_[t].variables, domain_);
      std::vector<int> at(joint.size(), 0);
      int64_t offset = 0;
      for (int64_t i = 0; i < size; ++i) {
        sum[i] += tables_[t].costs[offset];
        for (size_t d = joint.size(); d-- > 0;) {
          offset += strides[d];
          if (++at[d] < domain_[joint[d]]) break;
          offset -= strides[d] * domain_[joint[d]];
          at[d] = 0;
        }
      }
      for (int v : tables_[t].variables) std::erase(tables_of_[v], t);
      tables_[t] = {};
    }
    Table rest{e.neighbours, {}};
    const int n = domain_[variable];
    for (int64_t i = 0; i < size; i += n) {
      const auto least = std::min_element(sum.begin() + i, sum.begin() + i + n);
      e.best.push_back(static_cast<int>(least - (sum.begin() + i)));
      rest.costs.push_back(std::min(*least, kForbidden));
    }
    for (int v : e.neighbours) tables_of_[v].push_back(static_cast<int>(tables_.size()));
    if (!e.neighbours.empty()) tables_.push_back(std::move(rest));
    for (int v : e.neighbours) {
      open.erase({width[v], v});
      open.insert({width[v] = Width(v), v});
    }
    order.push_back(std::move(e));
  }
  std::vector<int> value(domain_.size(), 0);
  for (size_t i = order.size(); i-- > 0;) {
    int64_t at = 0;
    for (int v : order[i].neighbours) at = at * domain_[v] + value[v];
    value[order[i].variable] = order[i].best[at];
  }
  return value;
}

}  // namespace strata
