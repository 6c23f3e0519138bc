#include "checkpoint/pieces.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "core/base/check.h"

namespace strata {
namespace {

struct Range {
  int64_t begin, end;
};

// Disjoint ranges of elements, in rising order.
class RangeSet {
 public:
  // What of `range` is not in the set yet; then it is.
  std::vector<Range> Take(Range range) {
    std::vector<Range> fresh, all;
    int64_t from = range.begin;
    for (const Range& r : ranges_) {
      if (r.end <= range.begin || r.begin >= range.end) continue;
      if (from < r.begin) fresh.push_back({from, r.begin});
      from = std::max(from, r.end);
    }
    if (from < range.end) fresh.push_back({from, range.end});
    ranges_.insert(ranges_.end(), fresh.begin(), fresh.end());
    std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    for (const Range& r : ranges_) {
      if (!all.empty() && all.back().end == r.begin) {
        all.back().end = r.end;
      } else {
        all.push_back(r);
      }
    }
    ranges_ = std::move(all);
    return fresh;
  }

 private:
  std::vector<Range> ranges_;
};

// The local boxes of one tensor, and what ranks have taken of each.
struct Taken {
  LocalBox box;
  RangeSet ranges;
};

RangeSet& TakenOf(std::vector<Taken>& tensor, const LocalBox& box) {
  for (Taken& t : tensor) {
    if (t.box.shape == box.shape && t.box.origin == box.origin) return t.ranges;
  }
  return tensor.emplace_back(Taken{box, {}}).ranges;
}

// The pieces of one box of the local part, whose memory begins at `at` (in elements from ref).
void AppendPieces(const PlannedState& s, const Shape& local_offset, const Shape& size, int64_t at,
                  std::vector<Piece>& pieces) {
  Shape offset = local_offset, clipped = size;
  for (int d = 0; d < size.rank; ++d) {
    offset[d] += s.box.origin[d];
    clipped[d] = std::min(size[d], s.model_shape[d] - offset[d]);
    if (clipped[d] <= 0) return;  // nothing but padding
  }
  const auto add_run = [&](int64_t from, int64_t to, int64_t count) {
    ForEachBoxOfRange(clipped, to, count, [&](const Shape& run_offset, const Shape& run) {
      Shape place = offset;
      for (int d = 0; d < run.rank; ++d) place[d] += run_offset[d];
      pieces.push_back({{s.name, s.spec.dtype, s.model_shape, place, run}, (at + from) * SizeOf(s.spec.dtype)});
    });
    return absl::OkStatus();
  };
  STRATA_CHECK(ForEachRun(offset, size, offset, clipped, 1, add_run).ok());
}

}  // namespace

bool IsSaved(const PlannedState& state) {
  const bool flat = state.name.starts_with("bucket.");
  return !flat && state.role != Role::kGrad && state.role != Role::kBuffer;
}

std::vector<Piece> PiecesOf(const PlannedState& state) {
  std::vector<Piece> pieces;
  int64_t at = 0;
  ForEachBoxOfRange(state.box.shape, state.first, state.count, [&](const Shape& offset, const Shape& size) {
    AppendPieces(state, offset, size, at, pieces);
    at += size.elements();
  });
  return pieces;
}

std::vector<std::vector<PlannedState>> StatesToSave(std::span<const Plan> plans) {
  std::map<std::string_view, std::vector<Taken>> taken;
  std::vector<std::vector<PlannedState>> states(plans.size());
  for (size_t rank = 0; rank < plans.size(); ++rank) {
    for (const PlannedState& s : plans[rank].states) {
      if (!IsSaved(s) || s.count == 0) continue;
      for (const Range& part : TakenOf(taken[s.name], s.box).Take({s.first, s.first + s.count})) {
        PlannedState& narrowed = states[rank].emplace_back(s);
        narrowed.first = part.begin;
        narrowed.count = part.end - part.begin;
        narrowed.ref.offset += (part.begin - s.first) * SizeOf(s.spec.dtype);
      }
    }
  }
  return states;
}

}  // namespace strata
