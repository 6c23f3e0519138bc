#include "parallel/shard/solve.h"

#include <algorithm>
#include <map>
#include <optional>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/shard/convert.h"
#include "parallel/shard/min_sum.h"

namespace strata {
namespace {

using Placements = std::vector<Placement>;

struct Use {
  int site, slot;
};

class Solver {
 public:
  Solver(AxisSites& axis, const ChosenLayouts& chosen, const ShardOptions& options)
      : axis_(axis), graph_(axis.facts().graph), sites_(axis.sites()), chosen_(chosen), options_(options) {}

  absl::StatusOr<std::vector<Row>> Run() {
    RETURN_IF_ERROR(MakeArcConsistent());
    AddSiteTables();
    AddEdgeTables();
    ASSIGN_OR_RETURN(const std::vector<int> value, std::move(problem_).Solve());
    std::vector<Row> rows;
    for (size_t i = 0; i < sites_.size(); ++i) rows.push_back(sites_[i].rows[value[i]]);
    for (const Site& site : sites_) {  // consistent in pairs, but not as a whole
      for (int k = 0; k < static_cast<int>(site.inputs.size()); ++k) {
        const Value v = site.inputs[k];
        const Row& row = rows[&site - sites_.data()];
        if (!axis_.MayFeed(site, row, k, rows[v.node].out[v.output])) return axis_.NoPlacement(site, k);
      }
    }
    return rows;
  }

 private:
  // Drops what cannot be served or used; true if something was dropped.
  absl::StatusOr<bool> Filter(int i) {
    bool changed = false;
    Site& site = sites_[i];
    for (int k = 0; k < static_cast<int>(site.inputs.size()); ++k) {
      const Value v = site.inputs[k];
      std::vector<Row>& sources = sites_[v.node].rows;
      const auto feeds = [&](const Row& source, const Row& row) {
        return axis_.MayFeed(site, row, k, source.out[v.output]);
      };
      const auto served = [&](const Row& row) {
        return std::any_of(sources.begin(), sources.end(), [&](const Row& s) { return feeds(s, row); });
      };
      const auto used = [&](const Row& source) {
        return std::any_of(site.rows.begin(), site.rows.end(), [&](const Row& row) { return feeds(source, row); });
      };
      if (std::none_of(site.rows.begin(), site.rows.end(), served)) return axis_.NoPlacement(site, k);
      changed |= std::erase_if(sources, [&](const Row& s) { return !used(s); }) > 0;
      changed |= std::erase_if(site.rows, [&](const Row& row) { return !served(row); }) > 0;
    }
    return changed;
  }

  absl::Status MakeArcConsistent() {
    const int n = static_cast<int>(sites_.size());
    for (bool changed = true; changed;) {
      changed = false;
      for (int sweep = 0; sweep < 2; ++sweep) {
        for (int i = 0; i < n; ++i) {
          ASSIGN_OR_RETURN(const bool dropped, Filter(sweep == 0 ? i : n - 1 - i));
          changed |= dropped;
        }
      }
    }
    return absl::OkStatus();
  }

  // Matmul and attention time, shared by an axis only if the row shards something there.
  double ComputeSeconds(int i, const Row& row) const {
    const Site& site = sites_[i];
    if (site.kind != Site::Kind::kNode) return 0;
    const Node& n = graph_.nodes[site.node];
    std::vector<TensorSpec> in;
    for (Value v : n.inputs) in.push_back(graph_.spec(v));
    double seconds = n.op->Flops(in) / options_.flops;
    const std::vector<MeshAxis>& axes = axis_.facts().mesh.axes();
    for (int a = 0; a < static_cast<int>(axes.size()); ++a) {
      const auto sharded = [a](const Layout& l) { return l[a].is_shard(); };
      const auto is_shard = [](Placement p) { return p.is_shard(); };
      const bool here = a == axis_.axis() && (std::any_of(row.in.begin(), row.in.end(), is_shard) ||
                                              std::any_of(row.out.begin(), row.out.end(), is_shard));
      const bool outer = a != axis_.axis() && (std::any_of(chosen_.in[i].begin(), chosen_.in[i].end(), sharded) ||
                                               std::any_of(chosen_.out[i].begin(), chosen_.out[i].end(), sharded));
      if (here || outer) seconds /= axes[a].size;
    }
    return seconds;
  }

  void AddSiteTables() {
    for (int i = 0; i < static_cast<int>(sites_.size()); ++i) {
      const int rows = static_cast<int>(sites_[i].rows.size());
      const int variable = problem_.AddVariable(rows);
      if (rows == 1) continue;
      std::vector<double> costs;
      constexpr double kPreference = 1e-12;  // the op's order of rows breaks ties
      for (int r = 0; r < rows; ++r) costs.push_back(ComputeSeconds(i, sites_[i].rows[r]) + kPreference * r);
      problem_.AddTable({variable}, std::move(costs));
    }
  }

  double LocalBytes(Value v) const {
    const TensorSpec& spec = graph_.spec(v);
    double bytes = static_cast<double>(spec.shape.elements() * SizeOf(spec.dtype));
    const Layout& layout = chosen_.out[v.node][v.output];
    for (int a = 0; a < axis_.facts().mesh.num_axes(); ++a) {
      if (layout[a].is_shard()) bytes /= axis_.facts().mesh.axes()[a].size;
    }
    return bytes;
  }

  // The cheapest way to own copies in all `targets`, each converted from the best copy there is.
  double CopiesSeconds(Value v, Placement have, Placements targets) const {
    std::erase(targets, have);
    for (Placement t : targets) {
      if (!IsConvertible(have, t)) return kForbidden;
    }
    std::vector<int> order(targets.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    const double bytes = LocalBytes(v);
    double best = kForbidden;
    do {
      double seconds = 0;
      Placements owned = {have};
      for (int i : order) {
        double step = kForbidden;
        for (Placement p : owned) {
          if (IsConvertible(p, targets[i])) {
            step = std::min(step, ConversionSeconds(p, targets[i], bytes, axis_.axis_size(), options_));
          }
        }
        seconds += step;
        owned.push_back(targets[i]);
      }
      best = std::min(best, seconds);
    } while (std::next_permutation(order.begin(), order.end()));
    return best;
  }

  // Costs by (the maker's row, the user's row).
  template <typename Cost>
  void AddPairTable(Value v, int user, Cost&& cost) {
    std::vector<double> costs;
    for (const Row& source : sites_[v.node].rows) {
      for (const Row& row : sites_[user].rows) costs.push_back(cost(source.out[v.output], row));
    }
    if (v.node != user) problem_.AddTable({v.node, user}, std::move(costs));
  }

  double FeedCost(int site, const Row& row, int slot, Placement have) const {
    return axis_.MayFeed(sites_[site], row, slot, have) ? 0 : kForbidden;
  }

  void AddEdgeTables() {
    std::map<std::pair<Value, int>, std::vector<Use>> uses;  // by value and scope of its copies
    for (int i = 0; i < static_cast<int>(sites_.size()); ++i) {
      const Site& site = sites_[i];
      for (int k = 0; k < static_cast<int>(site.inputs.size()); ++k) {
        const Value v = site.inputs[k];
        if (site.direct) {
          AddPairTable(v, i, [&](Placement have, const Row& row) { return FeedCost(i, row, k, have); });
        } else {
          uses[{v, CopyScope(graph_, v, graph_.nodes[site.node].phase, options_)}].push_back({i, k});
        }
      }
    }
    for (const auto& entry : uses) {
      const std::vector<Use>& users = entry.second;
      if (std::all_of(users.begin(), users.end(), [&](Use u) { return u.site == users[0].site; })) {
        AddSingleUser(entry.first.first, users);
      } else {
        AddSharedUsers(entry.first.first, users);
      }
    }
  }

  void AddSingleUser(Value v, const std::vector<Use>& uses) {
    AddPairTable(v, uses[0].site, [&](Placement have, const Row& row) {
      Placements targets;
      for (Use u : uses) {
        if (FeedCost(u.site, row, u.slot, have) > 0) return kForbidden;
        if (std::find(targets.begin(), targets.end(), row.in[u.slot]) == targets.end())
          targets.push_back(row.in[u.slot]);
      }
      return CopiesSeconds(v, have, targets);
    });
  }

  void AddSharedUsers(Value v, const std::vector<Use>& uses) {
    Placements needed;
    for (Use u : uses) {
      for (const Row& row : sites_[u.site].rows) {
        if (std::find(needed.begin(), needed.end(), row.in[u.slot]) == needed.end()) needed.push_back(row.in[u.slot]);
      }
    }
    std::vector<Placements> sets;
    constexpr int kMostCopies = 3;
    for (uint32_t bits = 1; bits < (1u << needed.size()); ++bits) {
      if (__builtin_popcount(bits) > kMostCopies) continue;
      Placements set;
      for (size_t i = 0; i < needed.size(); ++i) {
        if ((bits >> i & 1) != 0) set.push_back(needed[i]);
      }
      sets.push_back(std::move(set));
    }
    const int copies = problem_.AddVariable(static_cast<int>(sets.size()));
    std::vector<double> making;
    for (const Row& source : sites_[v.node].rows) {
      for (const Placements& set : sets) making.push_back(CopiesSeconds(v, source.out[v.output], set));
    }
    problem_.AddTable({v.node, copies}, std::move(making));
    for (Use u : uses) {
      std::vector<double> owning;
      for (const Placements& set : sets) {
        for (const Row& row : sites_[u.site].rows) {
          owning.push_back(std::find(set.begin(), set.end(), row.in[u.slot]) != set.end() ? 0 : kForbidden);
        }
      }
      problem_.AddTable({copies, u.site}, std::move(owning));
      AddPairTable(v, u.site, [&](Placement have, const Row& row) { return FeedCost(u.site, row, u.slot, have); });
    }
  }

  AxisSites& axis_;
  const Graph& graph_;
  std::vector<Site>& sites_;
  const ChosenLayouts& chosen_;
  const ShardOptions& options_;
  MinSum problem_;
};

}  // namespace

int CopyScope(const Graph& graph, Value v, Phase consumer, const ShardOptions& options) {
  if (options.keep_gathered || graph.spec(v).shape.rank < 3) return 0;
  return consumer == Phase::kForward ? 1 : 2;
}

absl::StatusOr<std::vector<Row>> SolveAxis(AxisSites& axis, const ChosenLayouts& chosen, const ShardOptions& options) {
  return Solver(axis, chosen, options).Run();
}

}  // namespace strata
