#pragma once
// Placement conversions as ops. Only the shard pass, the bucket pass and the optimizer emit them. Global shapes do not
// change; the output's layout differs from the input's on `axes`, from `from` to `to`:
//   P->R all-reduce, S->R all-gather, P->S reduce-scatter, Si->Sj all-to-all, R->S slice (local, no communication).

#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata {

class CollectiveOp final : public Op {
 public:
  enum class Kind : uint8_t { kAllReduce, kAllGather, kReduceScatter, kAllToAll, kSlice };
  // kInPlace: the result lies in its input's storage. A flat tensor's shard is its own slice of the whole, so that a
  // reduce-scatter leaves it there, an all-gather fills the rest in around it, and a slice moves nothing.
  enum class Storage : uint8_t { kNew, kInPlace };
  // `members`, where not empty: only these of the group's ranks take part, by position in it, ascending.
  CollectiveOp(Kind kind, AxisSet axes, Placement from, Placement to, Storage storage = Storage::kNew,
               std::vector<int> members = {})
      : kind_(kind), axes_(axes), from_(from), to_(to), storage_(storage), members_(std::move(members)) {}
  std::string_view name() const override;   // "all_reduce", "all_gather", ...
  std::string attributes() const override;  // "axes=0x3 P->R"
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override;
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
  int Aliases(int) const override { return storage_ == Storage::kInPlace ? 0 : -1; }
  bool IsView() const override { return kind_ == Kind::kSlice && storage_ == Storage::kInPlace; }
  bool MayOverwrite(int) const override { return kind_ == Kind::kAllReduce; }
  bool in_place() const { return storage_ == Storage::kInPlace; }

  Kind kind() const { return kind_; }
  AxisSet axes() const { return axes_; }
  Placement from() const { return from_; }
  Placement to() const { return to_; }
  std::vector<int> Ranks(const Mesh& mesh) const;  // who takes part with the mesh's rank, itself among them
  std::string GroupName(const Mesh& mesh) const;   // "dp", "pp 0,3"

 private:
  Kind kind_;
  AxisSet axes_;
  Placement from_, to_;
  Storage storage_;
  std::vector<int> members_;
};

// One conversion over an axis set; the result's layout is the input's with `to` on `axes`. The kind follows from from -> to.
Value Convert(GraphBuilder& g, Value x, AxisSet axes, Placement from, Placement to,
              CollectiveOp::Storage storage = CollectiveOp::Storage::kNew, SourceLoc loc = SourceLoc::Here());

// The sum in x's storage over those ranks of the axes that hold the same tensor: the gradient of a parameter of several
// pipeline stages. What x is along the axes is no placement: other ranks hold other tensors.
Value SumOverOwners(GraphBuilder& g, Value x, AxisSet axes, std::vector<int> owners, SourceLoc loc = SourceLoc::Here());

const CollectiveOp* AsCollective(const Node& node);  // null where the node is of another kind

}  // namespace strata
