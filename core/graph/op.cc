#include "core/graph/op.h"

#include "absl/strings/str_format.h"
#include "core/graph/autograd.h"
#include "core/graph/builder.h"

namespace strata {

absl::StatusOr<std::vector<Value>> Op::Decompose(GraphBuilder&, std::span<const Value>) const {
  return absl::UnimplementedError(absl::StrFormat("%s has no decomposition", name()));
}

absl::StatusOr<std::vector<Value>> Op::Vjp(const VjpArgs& args) const {
  const NodeId first = static_cast<NodeId>(args.g.graph().nodes.size());
  absl::StatusOr<std::vector<Value>> outputs = Decompose(args.g, args.inputs);
  if (absl::IsUnimplemented(outputs.status())) {
    return absl::UnimplementedError(absl::StrFormat("%s is not differentiable", name()));
  }
  if (!outputs.ok()) return outputs.status();
  Gradients grads;
  for (size_t i = 0; i < outputs->size(); ++i) {
    if (args.grads[i].valid()) grads[(*outputs)[i]] = args.grads[i];
  }
  if (absl::Status s = Backward(args.g, first, grads); !s.ok()) return s;
  std::vector<Value> result;
  for (Value v : args.inputs) result.push_back(grads.contains(v) ? grads[v] : Value{});
  return result;
}

std::vector<ShardRule> ElementwiseRules(int rank, int num_in, int num_out) {
  std::vector<ShardRule> rules;
  for (int d = 0; d <= rank; ++d) {
    const Placement p = d < rank ? Shard(d) : Replicate();
    rules.push_back({std::vector<Placement>(num_in, p), std::vector<Placement>(num_out, p)});
  }
  return rules;
}

}  // namespace strata
