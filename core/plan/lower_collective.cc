#include <algorithm>

#include "core/base/status.h"
#include "core/ops/collective.h"
#include "core/plan/code.h"
#include "core/plan/sum_blocks.h"
#include "core/plan/swap_blocks.h"

namespace strata {
namespace {

// blocks[a, b, c] of `from` -> [b, a, c] in `to`, or in a new temporary.
absl::StatusOr<Operand> Swap(Code& code, int position, const Step& like, Operand from, const Shape& blocks,
                             const Operand* to) {
  const Shape swapped{blocks[1], blocks[0], blocks[2]};
  Operand target = to != nullptr ? *to : code.storages().Temporary(from.view.dtype, swapped);
  const Operand result = target;
  from.view = Contiguous(nullptr, from.view.dtype, blocks);
  target.view = Contiguous(nullptr, from.view.dtype, swapped);
  Step step{
      .node = like.node, .scope = like.scope, .op = std::make_shared<SwapBlocksOp>(), .in = {from}, .out = {target}};
  RETURN_IF_ERROR(code.Launch(position, std::move(step)));
  return result;
}

int64_t Outer(const Shape& s, int dim) {
  int64_t k = 1;
  for (int i = 0; i < dim; ++i) k *= s[i];
  return k;
}

// A few rows are gathered or scattered one by one, where they lie.
constexpr int64_t kMostCalls = 32;

int32_t CallsOf(const CollectiveOp& op, const Shape& in, const Shape& out) {
  using Kind = CollectiveOp::Kind;
  int64_t outer = 1;
  if (op.kind() == Kind::kReduceScatter) outer = Outer(in, op.to().dim);
  if (op.kind() == Kind::kAllGather) outer = Outer(out, op.from().dim);
  return outer <= kMostCalls ? static_cast<int32_t>(outer) : 1;
}

// The reduce-scatter `step` as an exchange of shards, which copy engines do, and a sum.
absl::Status Exchange(Code& code, int position, int64_t me, int64_t n, Step step) {
  const Shape blocks{step.calls, n, step.call.count / n};
  Operand result = step.out[0];
  result.view = Contiguous(nullptr, step.call.dtype, {blocks[0], blocks[2]});
  const Operand parts = code.storages().Temporary(step.call.dtype, blocks);
  Step sum{.node = step.node,
           .scope = step.scope,
           .op = std::make_shared<SumBlocksOp>(me),
           .in = {parts, step.in[0]},
           .out = {result},
           .comm = step.comm};
  step.call.kind = Collective::kAllToAll;
  step.call.own_unread = true;
  step.out[0] = parts;
  code.Emit(position, std::move(step));
  return code.Launch(position, std::move(sum));
}

}  // namespace

absl::Status LowerCollective(Code& code, int position, const CollectiveOp& op, Step step) {
  using Kind = CollectiveOp::Kind;
  constexpr Collective::Kind kCall[] = {Collective::kAllReduce, Collective::kAllGather, Collective::kReduceScatter,
                                        Collective::kAllToAll, Collective::kBarrier};
  const std::vector<int> ranks = op.Ranks(code.mesh());
  const int64_t n = static_cast<int64_t>(ranks.size());
  const Shape in = step.in[0].view.shape, out = step.out[0].view.shape;
  const Operand result = step.out[0];
  step.calls = CallsOf(op, in, out);
  const bool whole = step.calls == 1;  // in one call, of what may have to be packed
  const bool scatters = op.kind() == Kind::kReduceScatter || op.kind() == Kind::kAllToAll;
  const bool gathers = op.kind() == Kind::kAllGather || op.kind() == Kind::kAllToAll;
  if (whole && scatters && Outer(in, op.to().dim) > 1) {  // [o, n, rest] -> [n, o, rest]
    const int64_t o = Outer(in, op.to().dim);
    ASSIGN_OR_RETURN(step.in[0], Swap(code, position, step, step.in[0], {o, n, in.elements() / (o * n)}, nullptr));
  }
  const int64_t unpack = whole && gathers ? Outer(out, op.from().dim) : 1;  // [n, o, rest] -> [o, n, rest]
  if (unpack > 1) {
    step.out[0] = code.storages().Temporary(result.view.dtype, {n, unpack, out.elements() / (n * unpack)});
  }
  step.kind = Step::kCollective;
  step.comm = code.Comm({op.GroupName(code.mesh()), op.Ranks(code.mesh())});
  step.call = {.kind = kCall[static_cast<int>(op.kind())],
               .reduce = op.from().is_partial() ? op.from().reduce : ReduceOp::kSum,
               .dtype = step.in[0].view.dtype,
               .count = step.in[0].view.shape.elements() / step.calls};
  const bool sums = step.call.reduce == ReduceOp::kSum && IsFloating(step.call.dtype);
  if (op.kind() == Kind::kReduceScatter && sums && code.exchanges()) {
    const auto me = std::find(ranks.begin(), ranks.end(), code.mesh().rank()) - ranks.begin();
    return Exchange(code, position, me, n, std::move(step));
  }
  const Operand gathered = step.out[0];
  const Step like = step;
  code.Emit(position, std::move(step));
  if (unpack > 1) {
    RETURN_IF_ERROR(Swap(code, position, like, gathered, gathered.view.shape, &result).status());
  }
  return absl::OkStatus();
}

}  // namespace strata
