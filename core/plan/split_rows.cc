#include "core/plan/split_rows.h"

#include <algorithm>
#include <optional>
#include <set>

#include "core/graph/op.h"

namespace strata {
namespace {

// Rows of the first dim of outputs come of the same rows of those inputs that have them; other inputs are weights.
bool MapsRows(const Step& s) {
  constexpr const char* kOps[] = {"linear",           "linear_add",         "linear_bias",      "linear_bias_add",
                                  "linear_packed",    "linear_packed_bias", "linear_dx",        "linear_dx_add",
                                  "linear_packed_dx", "linear_swiglu",      "linear_dx_swiglu", "linear_rope",
                                  "linear_bias_gelu", "linear_dx_gelu"};
  return s.kind == Step::kLaunch &&
         std::any_of(std::begin(kOps), std::end(kOps), [&](const char* op) { return s.op->name() == op; });
}

// Of the operands of such a step: activations [rows, S, ...], and positions where rows have their own; not weights.
bool HasRows(const Operand& o, int64_t rows) {
  const TensorRef& t = o.view;
  return t.shape[0] == rows && (t.shape.rank >= 3 || (t.shape.rank == 2 && t.dtype == DType::kI32));
}

bool Meet(const Operand& a, const Operand& b) {
  return a.ref.region == b.ref.region && a.ref.offset < b.ref.offset + b.view.bytes() &&
         b.ref.offset < a.ref.offset + a.view.bytes();
}
bool Touches(const Step& s, const Operand& o) {
  const auto meets = [&](const Operand& other) { return Meet(o, other); };
  return std::any_of(s.in.begin(), s.in.end(), meets) || std::any_of(s.out.begin(), s.out.end(), meets);
}
bool Same(const Operand& a, const Operand& b) { return a.ref == b.ref && a.view.bytes() == b.view.bytes(); }

// Group g of n of the rows.
Operand Part(Operand o, int g, int n) {
  const int64_t bytes = o.view.bytes() / n;
  o.ref.offset += g * bytes;
  o.view.shape[0] /= n;
  return o;
}

Step PartOf(const Step& s, int64_t rows, int g, int n) {
  Step part = s;
  for (auto* operands : {&part.in, &part.out}) {
    for (Operand& o : *operands) {
      if (HasRows(o, rows)) o = Part(o, g, n);
    }
  }
  if (s.kind == Step::kCollective) part.calls = s.calls / n;
  return part;
}

struct Pair {  // of neighbouring steps: `first` feeds `second`, which may stand a little later
  size_t first, second;
};

class Splitter {
 public:
  Splitter(Segment& segment, int groups) : steps_(segment.steps), segment_(segment), groups_(groups) {}

  void Run() {
    std::vector<Step> made;
    std::vector<int32_t> begin(steps_.size(), -1), end(steps_.size());  // indices of a step's first and last part
    for (size_t i = 0; i < steps_.size(); ++i) {
      const std::optional<Pair> pair = PairAt(i);
      if (!pair) {
        if (!moved_.contains(i)) {
          made.push_back(steps_[i]);
          end[i] = static_cast<int32_t>(made.size()) - 1;
        }
        continue;
      }
      const Step &first = steps_[pair->first], &second = steps_[pair->second];
      const int64_t rows = Rows(*pair);
      const int n = GroupsOf(rows);
      begin[pair->first] = static_cast<int32_t>(made.size());
      for (int g = 0; g < n; ++g) {
        made.push_back(PartOf(first, rows, g, n));
        made.push_back(PartOf(second, rows, g, n));
      }
      end[pair->first] = static_cast<int32_t>(made.size()) - 2;
      end[pair->second] = static_cast<int32_t>(made.size()) - 1;
      moved_.insert(pair->second);
    }
    for (Segment::Free& f : segment_.frees) {
      // What dies at the first step of a pair without being its operand may be where the second one writes.
      const int32_t at = f.after_step;
      f.after_step = begin[at] >= 0 && !Uses(steps_[at], f) ? begin[at] : Latest(end, at);
    }
    std::stable_sort(segment_.frees.begin(), segment_.frees.end(),
                     [](auto& a, auto& b) { return a.after_step < b.after_step; });
    steps_ = std::move(made);
  }

 private:
  // The largest divisor of the rows that is not above `groups`.
  int GroupsOf(int64_t rows) const {
    int n = static_cast<int>(std::min<int64_t>(groups_, rows));
    while (rows % n != 0) --n;
    return n;
  }
  int64_t Rows(const Pair& p) const { return Collective(p).calls; }
  const Step& Collective(const Pair& p) const {
    return steps_[p.first].kind == Step::kCollective ? steps_[p.first] : steps_[p.second];
  }

  // A gather and the product after it, or a product and the reduce-scatter after it, with what may stand between.
  std::optional<Pair> PairAt(size_t i) const {
    if (moved_.contains(i)) return std::nullopt;
    const Step& s = steps_[i];
    if (s.kind == Step::kCollective && s.call.kind == strata::Collective::kAllGather && i + 1 < steps_.size() &&
        MapsRows(steps_[i + 1]) && Feeds(i, i + 1) && Fits({i, i + 1})) {
      return Pair{i, i + 1};
    }
    if (!MapsRows(s)) return std::nullopt;
    constexpr size_t kBetween = 3;  // such as the gradient of the weight
    for (size_t k = i + 1; k < steps_.size() && k <= i + 1 + kBetween; ++k) {
      const Step& c = steps_[k];
      if (c.kind != Step::kCollective) continue;
      const bool scatters = c.call.kind == strata::Collective::kReduceScatter ||
                            c.call.kind == strata::Collective::kAllToAll;  // of several calls: an exchanged one
      if (!scatters || !Feeds(i, k) || !Fits({i, k})) return std::nullopt;
      return Pair{i, k};
    }
    return std::nullopt;
  }

  bool Feeds(size_t i, size_t k) const {
    return std::any_of(steps_[k].in.begin(), steps_[k].in.end(),
                       [&](const Operand& in) { return Same(steps_[i].out[0], in); });
  }

  bool Fits(const Pair& p) const {
    const int64_t rows = Rows(p);
    const Step &first = steps_[p.first], &second = steps_[p.second];
    if (rows < 2 || GroupsOf(rows) < 2 || first.out.size() != 1) return false;
    if (!HasRows(first.out[0], rows) || !HasRows(second.in[0], rows)) return false;
    for (const Operand& out : second.out) {
      // The first groups of the second step are written before the last ones of the first step are read.
      const auto meets = [&](const Operand& in) { return Meet(in, out); };
      if (!HasRows(out, rows) || std::any_of(first.in.begin(), first.in.end(), meets)) return false;
    }
    for (size_t k = p.first + 1; k < p.second; ++k) {  // these come after both
      for (const Operand& out : steps_[k].out) {
        if (Touches(first, out) || Touches(second, out)) return false;
      }
      for (const Operand& out : second.out) {
        if (Touches(steps_[k], out)) return false;
      }
    }
    return true;
  }

  static bool Uses(const Step& s, const Segment::Free& f) {
    const auto meets = [&](const Operand& o) {
      return o.ref.region == f.ref.region && o.ref.offset < f.ref.offset + f.bytes &&
             f.ref.offset < o.ref.offset + o.view.bytes();
    };
    return std::any_of(s.in.begin(), s.in.end(), meets) || std::any_of(s.out.begin(), s.out.end(), meets);
  }

  static int32_t Latest(const std::vector<int32_t>& end, int32_t step) {
    int32_t latest = -1;
    for (int32_t i = 0; i <= step; ++i) latest = std::max(latest, end[i]);
    return latest;
  }

  std::vector<Step>& steps_;
  Segment& segment_;
  const int groups_;
  std::set<size_t> moved_;  // seconds of pairs
};

}  // namespace

void SplitRows(Segment& segment, int groups) {
  if (groups > 1) Splitter(segment, groups).Run();
}

}  // namespace strata
