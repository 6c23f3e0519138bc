#pragma once
// Named axes over the ranks of a job, and the placement algebra. Immutable values.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/tensor/tensor.h"

namespace strata {

enum class ReduceOp : uint8_t { kSum, kMax };

// What a tensor is along ONE mesh axis. Three kinds, no more. A ZeRO shard is Shard(0) of a bucket's flat state, not a
// fourth kind. Zigzag and striped sequences are a permutation made by the loader; positions travel as an int32 input.
struct Placement {
  enum Kind : uint8_t { kReplicate, kShard, kPartial } kind = kReplicate;
  int8_t dim = -1;                   // kShard
  ReduceOp reduce = ReduceOp::kSum;  // kPartial
  constexpr bool is_shard() const { return kind == kShard; }
  constexpr bool is_partial() const { return kind == kPartial; }
  constexpr bool is_replicate() const { return kind == kReplicate; }
  bool operator==(const Placement&) const = default;
};
constexpr Placement Replicate() { return {}; }
constexpr Placement Shard(int dim) { return {Placement::kShard, static_cast<int8_t>(dim), ReduceOp::kSum}; }
constexpr Placement Partial(ReduceOp op = ReduceOp::kSum) { return {Placement::kPartial, -1, op}; }
std::string ToString(Placement p);  // "R", "S1", "P", "Pmax"

inline constexpr int kMaxAxes = 8;
using Layout = std::array<Placement, kMaxAxes>;  // by mesh axis; axes that share a dim nest, outermost first
using AxisSet = uint8_t;                         // bit i = mesh axis i

struct MeshAxis {
  std::string name;
  int size = 1;
  // Ranks from one coordinate to the next; 0: the product of the sizes of the axes after it. The order of axes is the order in
  // which they nest; a stride lets the outer one of two join neighbouring ranks.
  int stride = 0;
};

class Mesh {
 public:
  Mesh() = default;  // one rank, no axes
  // Outermost first. An axis may be factored: tp=4 with 2 kv heads is {"tp.o",2},{"tp.i",2}: wq is Shard on both, wk and
  // wv are Shard on tp.o, Replicate on tp.i. Hierarchical ZeRO factors dp in a like way (parallel/zero/zero_config.h).
  // Errors: InvalidArgument if the sizes do not multiply to `ranks`, a size is < 1, strides do not lead to every rank once, or
  // there are over kMaxAxes axes.
  static absl::StatusOr<Mesh> Make(std::vector<MeshAxis> axes, int ranks, int rank);

  const std::vector<MeshAxis>& axes() const { return axes_; }
  int num_axes() const { return static_cast<int>(axes_.size()); }
  int rank() const { return rank_; }
  int size() const;                            // ranks in all
  int size(AxisSet axes) const;                // ranks along these axes
  int Coord(int axis) const;                   // my coordinate along an axis
  AxisSet Find(std::string_view name) const;   // "tp" = {tp.o, tp.i}; 0 if absent
  std::vector<int> Group(AxisSet axes) const;  // ranks that differ from me in these axes only, in mesh order
  std::string Name(AxisSet axes) const;        // "dp+tp.o"

 private:
  std::vector<MeshAxis> axes_;
  int rank_ = 0;
};

// The part of a tensor of global shape `global` that this rank holds under `layout`. Partial counts as whole.
// Axes that shard the same dim nest, outermost first.
struct LocalBox {
  Shape shape, origin;
};
// Errors: InvalidArgument names the dim that does not divide.
absl::StatusOr<LocalBox> LocalBoxOf(const Shape& global, const Layout& layout, const Mesh& mesh);

std::string ToString(const Layout& layout, const Mesh& mesh);  // "dp:S0 tp:R"

}  // namespace strata
