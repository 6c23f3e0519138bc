#include "parallel/shard/convert.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <queue>
#include <set>

#include "absl/strings/str_format.h"

namespace strata {
namespace {

bool IsSlice(Placement from, Placement to) { return from.is_replicate() && to.is_shard(); }
bool IsAllToAll(Placement from, Placement to) { return from.is_shard() && to.is_shard(); }

// Layouts as Dijkstra's vertices.
std::string KeyOf(const Layout& layout) {
  std::string key;
  for (Placement p : layout) {
    key += {static_cast<char>('0' + p.kind), static_cast<char>('0' + p.dim + 1),
            static_cast<char>('0' + static_cast<int>(p.reduce))};
  }
  return key;
}

// Whether an axis inside of `axis` shards what this step moves: then it must leave before, or enter after.
bool IsNestedLegally(const Layout& layout, int axis, Placement from, Placement to, int num_axes) {
  for (int inner = axis + 1; inner < num_axes; ++inner) {
    if (layout[inner].is_shard() && (layout[inner] == from || layout[inner] == to)) return false;
  }
  return true;
}

struct Hop {
  int axis;
  Placement from, to;
};
struct Visit {
  double seconds;
  int order;  // of discovery: breaks ties
  Layout layout;
  std::vector<Hop> hops;
  bool operator>(const Visit& o) const { return seconds != o.seconds ? seconds > o.seconds : order > o.order; }
};

Route Merge(const Visit& visit) {
  Route route;
  route.seconds = visit.seconds;
  for (const Hop& h : visit.hops) {
    const AxisSet axis = static_cast<AxisSet>(1 << h.axis);
    ConversionStep* last = route.steps.empty() ? nullptr : &route.steps.back();
    if (last != nullptr && last->from == h.from && last->to == h.to && !IsAllToAll(h.from, h.to)) {
      last->axes |= axis;
    } else {
      route.steps.push_back({axis, h.from, h.to});
    }
  }
  return route;
}

}  // namespace

bool IsStep(Placement from, Placement to) {
  if (from == to || to.is_partial()) return false;
  return !(from.is_partial() && from.reduce == ReduceOp::kMax && to.is_shard());
}

bool IsConvertible(Placement from, Placement to) { return from == to || !to.is_partial(); }

double StepBytes(Placement from, Placement to, double bytes, int n) {
  if (IsSlice(from, to)) return 0;
  const double share = bytes * (n - 1) / n;
  if (IsAllToAll(from, to)) return share / n;
  return from.is_partial() && to.is_replicate() ? 2 * share : share;
}

double ConversionSeconds(Placement from, Placement to, double bytes, int n, const ShardOptions& options) {
  if (from == to) return 0;
  if (!IsStep(from, to)) {
    return ConversionSeconds(from, Replicate(), bytes, n, options) +
           ConversionSeconds(Replicate(), to, bytes, n, options);
  }
  if (IsSlice(from, to)) return bytes / options.memory;
  return StepBytes(from, to, bytes, n) / options.bandwidth + options.latency_s;
}

absl::StatusOr<Route> FindRoute(const TensorSpec& spec, const Layout& from, const Layout& to, const Mesh& mesh,
                                const ShardOptions& options) {
  const double whole = static_cast<double>(spec.shape.elements() * SizeOf(spec.dtype));
  std::priority_queue<Visit, std::vector<Visit>, std::greater<Visit>> queue;
  std::set<std::string> done;
  const std::string goal = KeyOf(to);
  int order = 0;
  queue.push({0, order++, from, {}});
  while (!queue.empty()) {
    const Visit now = queue.top();
    queue.pop();
    const std::string key = KeyOf(now.layout);
    if (key == goal) return Merge(now);
    if (!done.insert(key).second) continue;
    for (int axis = 0; axis < mesh.num_axes(); ++axis) {
      for (const Placement next : {to[axis], Replicate()}) {
        const Placement have = now.layout[axis];
        if (!IsStep(have, next) || !IsNestedLegally(now.layout, axis, have, next, mesh.num_axes())) continue;
        Visit v{now.seconds, order++, now.layout, now.hops};
        v.layout[axis] = next;
        if (!LocalBoxOf(spec.shape, v.layout, mesh).ok()) continue;
        double bytes = whole;
        for (int a = 0; a < mesh.num_axes(); ++a) {
          if (a != axis && now.layout[a].is_shard()) bytes /= mesh.axes()[a].size;
        }
        constexpr double kPerStep = 1e-12;  // fewer steps win among equals
        v.seconds += ConversionSeconds(have, next, bytes, mesh.axes()[axis].size, options) + kPerStep;
        v.hops.push_back({axis, have, next});
        queue.push(std::move(v));
      }
    }
  }
  return absl::InvalidArgumentError(absl::StrFormat("%s cannot become %s", ToString(from, mesh), ToString(to, mesh)));
}

absl::StatusOr<std::vector<int>> PlanCopies(const TensorSpec& spec, const Layout& from,
                                            const std::vector<Layout>& wanted, const Mesh& mesh,
                                            const ShardOptions& options) {
  const int n = static_cast<int>(wanted.size());
  // seconds[i][j]: from copy i to copy j; row n is the value itself.
  std::vector<std::vector<double>> seconds(n + 1, std::vector<double>(n, std::numeric_limits<double>::infinity()));
  for (int i = 0; i <= n; ++i) {
    for (int j = 0; j < n; ++j) {
      if (i == j) continue;
      const absl::StatusOr<Route> route = FindRoute(spec, i < n ? wanted[i] : from, wanted[j], mesh, options);
      if (route.ok())
        seconds[i][j] = route->seconds;
      else if (i == n)
        return route.status();
    }
  }
  std::vector<int> order(n), best_source(n, -1);
  std::iota(order.begin(), order.end(), 0);
  double best = std::numeric_limits<double>::infinity();
  constexpr int kMostPermuted = 5;  // more copies are made in their order of use
  do {
    double total = 0;
    std::vector<int> owned = {n}, source(n);
    for (int j : order) {
      const int i =
          *std::min_element(owned.begin(), owned.end(), [&](int a, int b) { return seconds[a][j] < seconds[b][j]; });
      source[j] = i < n ? i : -1;
      total += seconds[i][j];
      owned.push_back(j);
    }
    if (total < best) {
      best = total;
      best_source = source;
    }
  } while (n <= kMostPermuted && std::next_permutation(order.begin(), order.end()));
  return best_source;
}

}  // namespace strata
