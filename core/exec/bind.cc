// Binding a plan to addresses, before step 1.

#include <map>
#include <set>

#include "core/exec/executor.h"
#include "core/graph/op.h"

namespace strata {
namespace {

// The first output of a launch that is kept in the storage of an input, outside of micro-batches; null: none.
const Operand* AccumulatorOf(const Plan& plan, const Step& step) {
  if (step.kind != Step::kLaunch) return nullptr;
  for (size_t k = 0; k < step.out.size(); ++k) {
    if (step.op->Aliases(static_cast<int>(k)) < 0) continue;
    return plan.regions[step.out[k].ref.region].kind == Region::kStatic ? &step.out[k] : nullptr;
  }
  return nullptr;
}

}  // namespace

std::byte* Executor::Address(Ref ref, int slot) const {
  const Region& r = plan_->regions[ref.region];
  return arena_[static_cast<int>(r.tier)] + r.offset + slot * r.bytes + ref.offset;
}
std::byte* Executor::Address(Ref ref, const Program& program, size_t action) const {
  return Address(ref, program.SlotOf(ref.region, action));
}

Executor::BoundSegment Executor::BindSegment(const Program& program, size_t action, const Segment& segment,
                                             const std::vector<bool>& overwrites) const {
  BoundSegment bound{.segment = &segment};
  for (size_t i = 0; i < segment.steps.size(); ++i) {
    const Step& step = segment.steps[i];
    BoundStep b{.step = &step, .overwrite = overwrites[i]};
    for (const Operand& o : step.in) b.in.emplace_back(o.view).data = Address(o.ref, program, action);
    for (const Operand& o : step.out) b.out.emplace_back(o.view).data = Address(o.ref, program, action);
    if (step.workspace_bytes > 0) {
      b.workspace = {Address(step.workspace, program, action), static_cast<size_t>(step.workspace_bytes)};
    }
    if (step.kind == Step::kCollective) {
      for (int32_t k = 0; k < step.calls; ++k) {
        Collective& call = b.calls.emplace_back(step.call);
        call.in = b.in.empty() ? nullptr : b.in[0].as<const std::byte>() + b.in[0].bytes() / step.calls * k;
        call.out = b.out.empty() ? nullptr : b.out[0].as<std::byte>() + b.out[0].bytes() / step.calls * k;
      }
    }
    bound.has_collectives |= step.kind == Step::kCollective;
    bound.steps.push_back(std::move(b));
  }
  return bound;
}

// Actions with the same code, slots and accumulators to overwrite share a bound segment.
void Executor::Bind(const Program& program) {
  BoundProgram& p = programs_.emplace_back(BoundProgram{.program = &program});
  std::map<std::vector<int>, BoundSegment*> known;
  std::set<std::pair<int16_t, int64_t>> written;  // accumulators, by earlier actions
  for (size_t a = 0; a < program.actions.size(); ++a) {
    const int index = program.SegmentOf(program.actions[a]);
    p.by_action.push_back(nullptr);
    if (index < 0) continue;
    const Segment& segment = program.segments[index];
    std::vector<int> key{index};
    for (const Slots& s : program.slots) key.push_back(s.by_action[a].slot);
    std::vector<bool> overwrites;
    std::vector<std::pair<int16_t, int64_t>> accumulators;
    for (const Step& step : segment.steps) {
      const Operand* const accumulator = AccumulatorOf(*plan_, step);
      if (accumulator != nullptr) accumulators.emplace_back(accumulator->ref.region, accumulator->ref.offset);
      overwrites.push_back(accumulator != nullptr && !written.contains(accumulators.back()));
      if (overwrites.back()) key.push_back(static_cast<int>(overwrites.size()));
    }
    written.insert(accumulators.begin(), accumulators.end());
    BoundSegment*& bound = known[key];
    if (bound == nullptr) bound = &p.bound.emplace_back(BindSegment(program, a, segment, overwrites));
    p.by_action.back() = bound;
  }
  p.times.resize(program.actions.size());
  for (const Slots& s : program.slots) {
    p.holders.push_back({std::vector<int32_t>(plan_->regions[s.region].slots, SlotHolders::kNobody)});
  }
  p.peaks.resize(program.slots.size());
}

}  // namespace strata
