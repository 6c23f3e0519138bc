#include "core/ops/collective.h"

#include "absl/strings/str_format.h"

namespace strata {

std::string_view CollectiveOp::name() const {
  constexpr std::string_view kName[] = {"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "slice_shard"};
  return kName[static_cast<int>(kind_)];
}

std::string CollectiveOp::attributes() const {
  return absl::StrFormat("axes=%#x %s->%s", axes_, ToString(from_), ToString(to_));
}

absl::StatusOr<std::vector<TensorSpec>> CollectiveOp::Infer(std::span<const TensorSpec> in) const {
  if (in.size() != 1) return absl::InvalidArgumentError("a collective has one input");
  TensorSpec out = in[0];
  for (int a = 0; a < kMaxAxes; ++a) {
    if ((axes_ >> a & 1) != 0) out.layout[a] = to_;
  }
  return std::vector<TensorSpec>{out};
}

Value Convert(GraphBuilder& g, Value x, AxisSet axes, Placement from, Placement to, CollectiveOp::Storage storage,
              SourceLoc loc) {
  using Kind = CollectiveOp::Kind;
  Kind kind = Kind::kAllReduce;
  if (from.is_shard()) kind = to.is_shard() ? Kind::kAllToAll : Kind::kAllGather;
  if (from.is_partial() && to.is_shard()) kind = Kind::kReduceScatter;
  if (from.is_replicate()) kind = Kind::kSlice;
  if (to.is_partial() || from == to) {
    g.Fail(absl::InternalError(absl::StrFormat("no conversion %s -> %s", ToString(from), ToString(to))), loc);
    return {};
  }
  const std::vector<Value> out = g.Add(std::make_shared<CollectiveOp>(kind, axes, from, to, storage), {x}, loc);
  return out[0];
}

const CollectiveOp* AsCollective(const Node& node) { return dynamic_cast<const CollectiveOp*>(node.op.get()); }

}  // namespace strata
