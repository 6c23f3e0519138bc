#include <algorithm>

#include "core/base/status.h"
#include "core/plan/lower.h"
#include "core/plan/overlap.h"
#include "core/plan/place_states.h"
#include "core/plan/plan.h"

namespace strata {

absl::StatusOr<Plan> BuildPlan(std::span<const ProgramSpec> programs, const Mesh& mesh, const KernelTable& kernels,
                               const BuildPlanOptions& options) {
  Plan plan;
  plan.streams = {{"compute", Priority::kNormal}};
  ASSIGN_OR_RETURN(plan.states, PlaceStates(programs, mesh, plan.regions));
  LowerContext context{
      mesh,           kernels, {}, plan.comms, plan.regions, options.overlap ? options.row_groups : 1, options.exchange,
      options.overlap};
  for (const PlannedState& s : plan.states) context.states[s.name] = &s;

  int64_t& arena = plan.arena_bytes[static_cast<int>(Tier::kDevice)];
  const auto append = [&](Region& r, int64_t& end) {
    r.offset = end;
    end += r.bytes * r.slots;
  };
  for (Region& r : plan.regions) append(r, arena);
  for (size_t i = 0; i < programs.size(); ++i) {
    const size_t first = plan.regions.size();
    absl::StatusOr<Program> program = LowerProgram(programs[i], static_cast<int>(i), context);
    if (!program.ok()) return Annotate(program.status(), programs[i].name);
    plan.programs.push_back(*std::move(program));
    for (size_t r = first; r < plan.regions.size(); ++r) {
      if (plan.regions[r].kind == Region::kStatic) append(plan.regions[r], arena);
    }
  }
  const int64_t scratch = arena;  // programs run one at a time and share what follows
  for (const Program& p : plan.programs) {
    int64_t end = scratch;
    for (Region& r : plan.regions) {
      if (r.kind != Region::kStatic && r.name.compare(0, p.name.size() + 1, p.name + " ") == 0) append(r, end);
    }
    arena = std::max(arena, end);
  }
  if (options.overlap) {
    const auto all = static_cast<AxisSet>((1 << mesh.num_axes()) - 1);
    OverlapSteps(plan, mesh.Group(static_cast<AxisSet>(all & ~options.stages)));
  }
  return plan;
}

}  // namespace strata
