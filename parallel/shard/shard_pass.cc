#include "parallel/shard/shard_pass.h"

#include "core/base/status.h"
#include "parallel/shard/candidates.h"
#include "parallel/shard/emit.h"
#include "parallel/shard/solve.h"

namespace strata {

absl::StatusOr<Graph> ShardPass(const Graph& global, const Mesh& mesh, std::span<const Pin> pins,
                                const ShardOptions& options) {
  const ShardFacts facts(global, mesh, pins);
  ShardedChoice choice;
  const auto add_site = [&](size_t num_in, size_t num_out) {
    choice.layouts.in.emplace_back(num_in);
    choice.layouts.out.emplace_back(num_out);
    choice.expansions.emplace_back();
  };
  for (const Node& n : global.nodes) add_site(n.inputs.size(), n.outputs.size());
  for (size_t i = 0; i < global.outputs.size(); ++i) add_site(1, 0);
  for (const auto& [id, values] : facts.state_values) {
    if (values.size() > 1) add_site(values.size(), 0);
  }
  for (int axis = 0; axis < mesh.num_axes(); ++axis) {
    if (mesh.axes()[axis].size == 1 || !PinsName(pins, mesh.axes()[axis].name)) continue;
    ASSIGN_OR_RETURN(AxisSites sites, AxisSites::Make(facts, choice.layouts, axis));
    ASSIGN_OR_RETURN(const std::vector<Row> rows, SolveAxis(sites, choice.layouts, options));
    for (size_t i = 0; i < rows.size(); ++i) {
      for (size_t k = 0; k < rows[i].in.size(); ++k) choice.layouts.in[i][k][axis] = rows[i].in[k];
      for (size_t k = 0; k < rows[i].out.size(); ++k) choice.layouts.out[i][k][axis] = rows[i].out[k];
      if (rows[i].rule >= 0 && facts.rules[i][rows[i].rule].expand)
        choice.expansions[i].push_back({axis, rows[i].rule});
    }
  }
  return EmitSharded(facts, choice, options);
}

}  // namespace strata
