#include "parallel/zero/reduce_scatter.h"

#include "core/ops/collective.h"
#include "parallel/zero/layouts.h"

namespace strata {
namespace {

// One all-to-all over `axes`. `done`: axes that shard `flat` already. `later`: those that the next hop is over: what goes to
// one member now is every chunk that one of its peers there owns in the end.
Value Hop(GraphBuilder& g, Value flat, AxisSet axes, AxisSet later, AxisSet done, AxisSet partial, QuantBits bits,
          const Mesh& mesh) {
  const int64_t n = mesh.size(axes);
  const DType dtype = g.spec(flat).dtype;
  const QuantSpec spec{.bits = bits, .rows = n, .outer = mesh.size(later), .inner = n};
  Layout sent = LayoutOn(done, partial, 1);
  for (int a = 0; a < kMaxAxes; ++a) {
    if ((axes >> a & 1) != 0) sent[a] = Shard(0);
  }
  const Value rows = Convert(g, WithLayout(g, Quantize(g, flat, spec), sent), axes, Shard(0), Shard(1));
  return WithLayout(g, DequantizeSum(g, rows, bits, dtype), LayoutOn(axes | done, Without(partial, axes)));
}

}  // namespace

Value ReduceScatter(GraphBuilder& g, const Bucket& b, Value flat, AxisSet axes, const ZeroOptions& zero,
                    const Mesh& mesh) {
  if (!zero.gradient_bits.has_value()) {
    return Convert(g, flat, axes, Partial(), Shard(0), CollectiveOp::Storage::kInPlace);
  }
  const AxisSet inner = axes & zero.inner, outer = Without(axes, zero.inner);
  if (inner != 0) flat = Hop(g, flat, inner, outer, 0, b.reduce_axes, *zero.gradient_bits, mesh);
  if (outer != 0) flat = Hop(g, flat, outer, 0, inner, Without(b.reduce_axes, inner), *zero.gradient_bits, mesh);
  return flat;
}

}  // namespace strata
