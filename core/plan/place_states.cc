#include "core/plan/place_states.h"

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

}  // namespace

absl::StatusOr<std::vector<PlannedState>> PlaceStates(std::span<const ProgramSpec> programs, const Mesh& mesh,
                                                      std::vector<Region>& regions) {
  std::vector<std::string> order;
  ASSIGN_OR_RETURN(auto declared, Collect(programs, order));
  std::map<std::string, Ref> placed;
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
      const int64_t size = SizeOf(state.spec.dtype);
      Ref ref;
      if (views) {
        if (!placed.contains(storage)) return absl::InternalError(absl::StrFormat("%s: no storage %s", name, storage));
        ref = placed[storage];
        ref.offset += state.storage_offset * size;
      } else {
        ref = placed[name] = place(state, box.shape.elements() * size);
      }
      const Shape& model = state.model_shape.rank > 0 ? state.model_shape : state.spec.shape;
      states.push_back({name, state.role, state.spec, box, 0, box.shape.elements(), ref, views, model});
    }
  }
  return states;
}

}  // namespace strata
