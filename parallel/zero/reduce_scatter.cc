#include "parallel/zero/reduce_scatter.h"

#include "core/ops/collective.h"
#include "core/ops/flat.h"
#include "core/ops/move.h"
#include "core/ops/sum_parts.h"
#include "parallel/zero/layouts.h"

namespace strata {
namespace {

AxisSet AxesWhere(const Layout& layout, Placement::Kind kind) {
  AxisSet axes = 0;
  for (int a = 0; a < kMaxAxes; ++a) {
    if (layout[a].kind == kind) axes |= static_cast<AxisSet>(1 << a);
  }
  return axes;
}

// One all-to-all over `axes`.
Value Hop(GraphBuilder& g, Value flat, AxisSet axes, QuantBits bits, const Mesh& mesh) {
  const TensorSpec spec = g.spec(flat);
  const AxisSet done = AxesWhere(spec.layout, Placement::kShard), partial = AxesWhere(spec.layout, Placement::kPartial);
  Layout sent = LayoutOn(done, partial, 1);
  for (int a = 0; a < kMaxAxes; ++a) {
    if ((axes >> a & 1) != 0) sent[a] = Shard(0);
  }
  const Value bytes = WithLayout(g, Quantize(g, flat, {.bits = bits, .rows = mesh.size(axes)}), sent);
  const Value rows = Convert(g, bytes, axes, Shard(0), Shard(1));
  return WithLayout(g, DequantizeSum(g, rows, bits, AccumulatorOf(spec.dtype)),
                    LayoutOn(axes | done, Without(partial, axes)));
}

// Each member's shard of every member, then their sum.
Value ExchangeAndSum(GraphBuilder& g, Value flat, AxisSet axes, const ZeroOptions& zero, const Mesh& mesh) {
  const TensorSpec spec = g.spec(flat);
  if (zero.bf16_gradients) flat = WithLayout(g, Cast(g, flat, DType::kBF16), spec.layout);
  const AxisSet done = AxesWhere(spec.layout, Placement::kShard), partial = AxesWhere(spec.layout, Placement::kPartial);
  Layout sent = LayoutOn(done, partial, 1);
  for (int a = 0; a < kMaxAxes; ++a) {
    if ((axes >> a & 1) != 0) sent[a] = Shard(0);
  }
  const Value row = WithLayout(g, FlatView(g, flat, 0, {mesh.size(axes), spec.shape[0]}), sent);
  const Value rows = Convert(g, row, axes, Shard(0), Shard(1));
  return WithLayout(g, SumParts(g, rows), LayoutOn(axes | done, Without(partial, axes)));
}

}  // namespace

Value ReduceScatter(GraphBuilder& g, Value flat, AxisSet axes, const ZeroOptions& zero, const Mesh& mesh) {
  if (zero.scatter_by == ScatterBy::kAllToAll) return ExchangeAndSum(g, flat, axes, zero, mesh);
  if (!zero.gradient_bits.has_value()) {
    return Convert(g, flat, axes, Partial(), Shard(0), CollectiveOp::Storage::kInPlace);
  }
  const AxisSet inner = axes & zero.inner, outer = Without(axes, zero.inner);
  if (inner != 0) flat = Hop(g, flat, inner, *zero.gradient_bits, mesh);
  return outer == 0 ? flat : Hop(g, flat, outer, *zero.gradient_bits, mesh);
}

}  // namespace strata
