#include "core/plan/place_states.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/plan/memory.h"

namespace strata {
namespace {

constexpr const char* kRegionName[] = {"parameters", "gradients", "master weights", "moments", "moments", "buffers"};

struct Declared {
  State state;
  std::string storage;  // name of the flat state, or empty
};

absl::StatusOr<std::map<std::string, Declared>> Collect(std::span<const ProgramSpec> programs,
                                                        std::vector<std::string>& order) {
  std::map<std::string, Declared> all;
  for (const ProgramSpec& p : programs) {
    for (const State& s : p.graph.states) {
      const std::string storage = s.storage >= 0 ? p.graph.states[s.storage].name : "";
      const auto [it, fresh] = all.try_emplace(s.name, Declared{s, storage});
      if (fresh) {
        order.push_back(s.name);
        continue;
      }
      const TensorSpec& have = it->second.state.spec;
      if (have.dtype != s.spec.dtype || have.shape != s.spec.shape || have.layout != s.spec.layout) {
        return absl::InternalError(absl::StrFormat("programs disagree about the spec of state %s", s.name));
      }
      if (it->second.storage.empty() && !storage.empty()) it->second = {s, storage};
    }
  }
  return all;
}

// What of a state's box this rank stores, and where: elements [first, first + count) from `offset` of the storage on.
struct Extent {
  int64_t first = 0, count = 0, offset = 0;
};

// Of a view into the range of the flat state that this rank holds. A view of the flat state's own shape, of which the rank
// holds the whole box, may be that state under another layout (the shard of a bucket that is whole): it lies where its box
// lies. Else it is a tensor as large as its bucket.
Extent ExtentIn(const PlannedState& flat, const State& view, const LocalBox& box) {
  const int64_t begin = flat.box.origin[0], end = begin + flat.box.shape[0];
  const int64_t count = box.shape.elements();
  const bool same = view.spec.shape == flat.spec.shape && box.origin[0] >= begin && box.origin[0] + count <= end;
  const int64_t from = same ? box.origin[0] : view.storage_offset;
  const int64_t stored = std::clamp(from, begin, end), last = std::clamp(from + count, begin, end);
  if (last == stored) return Extent{};
  return Extent{stored - from, last - stored, stored - begin};
}

}  // namespace

absl::StatusOr<std::vector<PlannedState>> PlaceStates(std::span<const ProgramSpec> programs, const Mesh& mesh,
                                                      std::vector<Region>& regions) {
  std::vector<std::string> order;
  ASSIGN_OR_RETURN(auto declared, Collect(programs, order));
  std::map<std::string, PlannedState> placed;  // what has storage of its own
  const auto place = [&](const State& s, int64_t bytes) -> Ref {
    const std::string name = kRegionName[static_cast<int>(s.role)];
    size_t r = 0;
    while (r < regions.size() && regions[r].name != name) ++r;
    if (r == regions.size()) regions.push_back({.kind = Region::kStatic, .name = name});
    const Ref ref{static_cast<int16_t>(r), regions[r].bytes};
    regions[r].bytes += AlignUp(bytes);
    return ref;
  };
  std::vector<PlannedState> states;
  for (const bool views : {false, true}) {
    for (const std::string& name : order) {
      const auto& [state, storage] = declared[name];
      if (storage.empty() == views) continue;
      ASSIGN_OR_RETURN(LocalBox box, LocalBoxOf(state.spec.shape, state.spec.layout, mesh));
      const Shape& model = state.model_shape.rank > 0 ? state.model_shape : state.spec.shape;
      PlannedState planned{name, state.role, state.spec, box, 0, box.shape.elements(), {}, views, model};
      if (views) {
        const auto flat = placed.find(storage);
        if (flat == placed.end()) return absl::InternalError(absl::StrFormat("%s: no storage %s", name, storage));
        const Extent e = ExtentIn(flat->second, state, box);
        planned.first = e.first;
        planned.count = e.count;
        planned.ref = flat->second.ref;
        planned.ref.offset += e.offset * SizeOf(state.spec.dtype);
      } else {
        planned.ref = place(state, box.shape.elements() * SizeOf(state.spec.dtype));
        placed.emplace(name, planned);
      }
      states.push_back(std::move(planned));
    }
  }
  return states;
}

}  // namespace strata
