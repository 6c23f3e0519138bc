#include "parallel/shard/convert.h"

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
    key += {static_cast<char>('0' + p.kind), static_cast<char>('0' + p.dim + 1), static_cast<char>('0' + static_cast<int>(p.reduce))};
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
  double bytes;
  int order;  // of discovery: breaks ties
  Layout layout;
  std::vector<Hop> hops;
  bool operator>(const Visit& o) const { return bytes != o.bytes ? bytes > o.bytes : order > o.order; }
};

Route Merge(const Visit& visit) {
  Route route;
  route.bytes = visit.bytes;
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
    return ConversionSeconds(from, Replicate(), bytes, n, options) + ConversionSeconds(Replicate(), to, bytes, n, options);
  }
  if (IsSlice(from, to)) return bytes / options.memory;
  return StepBytes(from, to, bytes, n) / options.bandwidth + options.latency_s;
}

absl::StatusOr<Route> FindRoute(const TensorSpec& spec, const Layout& from, const Layout& to, const Mesh& mesh) {
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
        Visit v{now.bytes, order++, now.layout, now.hops};
        v.layout[axis] = next;
        if (!LocalBoxOf(spec.shape, v.layout, mesh).ok()) continue;
        double bytes = whole;
        for (int a = 0; a < mesh.num_axes(); ++a) {
          if (a != axis && now.layout[a].is_shard()) bytes /= mesh.axes()[a].size;
        }
        constexpr double kPerStep = 1e-3;  // fewer steps win among equals
        v.bytes += StepBytes(have, next, bytes, mesh.axes()[axis].size) + kPerStep;
        v.hops.push_back({axis, have, next});
        queue.push(std::move(v));
      }
    }
  }
  return absl::InvalidArgumentError(absl::StrFormat("%s cannot become %s", ToString(from, mesh), ToString(to, mesh)));
}

}  // namespace strata
