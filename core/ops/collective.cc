#include "core/ops/collective.h"

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace strata {

std::string_view CollectiveOp::name() const {
  constexpr std::string_view kName[] = {"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "slice_shard"};
  return kName[static_cast<int>(kind_)];
}

std::string CollectiveOp::attributes() const {
  const std::string members = members_.empty() ? "" : " members=" + absl::StrJoin(members_, ",");
  return absl::StrFormat("axes=%#x %s->%s%s", axes_, ToString(from_), ToString(to_), members);
}

std::vector<int> CollectiveOp::Ranks(const Mesh& mesh) const {
  const std::vector<int> group = mesh.Group(axes_);
  if (members_.empty()) return group;
  std::vector<int> ranks;
  for (const int m : members_) ranks.push_back(group[m]);
  return ranks;
}

std::string CollectiveOp::GroupName(const Mesh& mesh) const {
  return mesh.Name(axes_) + (members_.empty() ? "" : " " + absl::StrJoin(members_, ","));
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

Value SumOverOwners(GraphBuilder& g, Value x, AxisSet axes, std::vector<int> owners, SourceLoc loc) {
  return g.Add(std::make_shared<CollectiveOp>(CollectiveOp::Kind::kAllReduce, axes, Partial(), Replicate(),
                                              CollectiveOp::Storage::kInPlace, std::move(owners)),
               {x}, loc)[0];
}

const CollectiveOp* AsCollective(const Node& node) { return dynamic_cast<const CollectiveOp*>(node.op.get()); }

}  // namespace strata
