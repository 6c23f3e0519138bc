#include "core/exec/executor.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {

std::byte* Executor::Address(Ref ref, int slot) const {
  const Region& r = plan_->regions[ref.region];
  return arena_[static_cast<int>(r.tier)] + r.offset + (slot % r.slots) * r.bytes + ref.offset;
}

void Executor::Bind(const Program& program) {
  int slots = 1;
  for (const Region& r : plan_->regions) slots = std::max(slots, static_cast<int>(r.slots));
  BoundProgram p{.program = &program};
  for (const Segment& segment : program.segments) {
    std::vector<BoundSegment> by_slot(slots);
    for (int slot = 0; slot < slots; ++slot) {
      by_slot[slot].program = &program;
      by_slot[slot].segment = &segment;
      for (const Step& step : segment.steps) {
        BoundStep b{.step = &step, .call = step.call};
        for (const Operand& o : step.in) b.in.emplace_back(o.view).data = Address(o.ref, slot);
        for (const Operand& o : step.out) b.out.emplace_back(o.view).data = Address(o.ref, slot);
        if (step.workspace_bytes > 0) {
          b.workspace = {Address(step.workspace, slot), static_cast<size_t>(step.workspace_bytes)};
        }
        if (step.kind == Step::kCollective) {
          b.call.in = b.in.empty() ? nullptr : b.in[0].data;
          b.call.out = b.out.empty() ? nullptr : b.out[0].data;
        }
        by_slot[slot].has_collectives |= step.kind == Step::kCollective;
        by_slot[slot].steps.push_back(std::move(b));
      }
    }
    p.bound.push_back(std::move(by_slot));
  }
  for (const Action& a : program.actions) {
    const auto it = std::find_if(program.segments.begin(), program.segments.end(),
                                 [&](const Segment& s) { return s.kind == a.kind && s.stage == a.stage; });
    p.segment_of_action.push_back(it == program.segments.end() ? -1 : static_cast<int>(it - program.segments.begin()));
  }
  programs_.push_back(std::move(p));
}

absl::StatusOr<std::unique_ptr<Executor>> Executor::Create(std::shared_ptr<const Plan> plan, Deps deps) {
  std::unique_ptr<Executor> e(new Executor(deps));
  e->plan_ = std::move(plan);
  for (int t = 0; t < kNumTiers; ++t) {
    if (e->plan_->arena_bytes[t] == 0) continue;
    ASSIGN_OR_RETURN(e->arena_[t], deps.device.Reserve(static_cast<Tier>(t), e->plan_->arena_bytes[t]));
  }
  for (const std::string& name : e->plan_->streams) {
    ASSIGN_OR_RETURN(e->streams_.emplace_back(), deps.device.NewStream(name));
  }
  for (int i = 0; i < e->plan_->events; ++i) {
    ASSIGN_OR_RETURN(e->events_.emplace_back(), deps.device.NewEvent());
  }
  for (const CommSpec& spec : e->plan_->comms) {
    ASSIGN_OR_RETURN(e->comms_.emplace_back(), deps.world.Connect(spec));
  }
  if (e->streams_.empty()) return absl::InternalError("a plan without streams");
  ASSIGN_OR_RETURN(std::byte* const scalars, deps.device.Reserve(Tier::kDevice, sizeof(StepScalars)));
  e->device_scalars_ = reinterpret_cast<StepScalars*>(scalars);
  for (const Program& p : e->plan_->programs) e->Bind(p);
  RETURN_IF_ERROR(e->Prepare());
  return e;
}

absl::Status Executor::Prepare() {
  bool wrote = false;
  for (const BoundProgram& p : programs_) {
    for (const auto& slots : p.bound) {
      for (const BoundStep& b : slots[0].steps) {
        if (b.step->kind != Step::kLaunch || b.step->kernel->prepare == nullptr) continue;
        wrote = true;
        const absl::Status s = b.step->kernel->prepare(ArgsOf(b, false));
        if (!s.ok()) return Annotate(s, "preparing " + b.step->scope);
      }
    }
  }
  if (!wrote) return absl::OkStatus();
  for (int t = 0; t < kNumTiers; ++t) {
    if (arena_[t] != nullptr) RETURN_IF_ERROR(deps_.device.Fill(arena_[t], 0, plan_->arena_bytes[t], streams_[0]));
  }
  return deps_.device.Drain();
}

absl::Status Executor::Fail(const absl::Status& error) {
  error_ = error;
  const absl::Status cause = Annotate(error, absl::StrFormat("rank %d", deps_.world.rank()));
  for (auto& c : comms_) {
    if (c != nullptr) c->Abort(cause);
  }
  deps_.device.Drain().IgnoreError();
  return error_;
}

absl::Status Executor::Run(std::string_view name, const StepScalars& scalars, const Feed& feed) {
  if (!error_.ok()) return error_;
  const auto p =
      std::find_if(programs_.begin(), programs_.end(), [&](const BoundProgram& b) { return b.program->name == name; });
  if (p == programs_.end()) return absl::NotFoundError(absl::StrFormat("the plan has no program %s", name));
  scalars_ = scalars;
  if (absl::Status s = deps_.device.Copy(device_scalars_, &scalars_, sizeof(scalars_), streams_[0]); !s.ok())
    return Fail(s);
  for (size_t i = 0; i < p->program->actions.size(); ++i) {
    if (p->segment_of_action[i] < 0) continue;
    const absl::Status s = RunAction(*p, p->program->actions[i], p->segment_of_action[i], feed);
    if (!s.ok()) return Fail(s);
  }
  if (absl::Status s = deps_.device.Drain(); !s.ok()) return Fail(s);
  for (auto& c : comms_) {  // a collective that was aborted lets the device drain
    if (c == nullptr) continue;
    if (absl::Status s = c->Poll(); !s.ok()) return Fail(s);
  }
  return absl::OkStatus();
}

absl::Status Executor::RunAction(BoundProgram& p, const Action& action, int segment, const Feed& feed) {
  const int slot = std::max(0, action.micro_batch) % static_cast<int>(p.bound[segment].size());
  if (action.kind == Action::kF) RETURN_IF_ERROR(FeedInputs(*p.program, action, slot, feed));
  return RunSegment(p.bound[segment][slot], action, slot);
}

absl::Status Executor::FeedInputs(const Program& program, const Action& action, int slot, const Feed& feed) {
  for (const Port& port : program.inputs) {
    absl::StatusOr<std::span<const std::byte>> bytes = feed(port, action.micro_batch);
    if (!bytes.ok()) return Annotate(bytes.status(), absl::StrFormat("input %s of %s", port.name, ToString(action)));
    if (static_cast<int64_t>(bytes->size()) != port.operand.view.bytes()) {
      return absl::InternalError(absl::StrFormat("input %s has %d bytes, the plan expects %d", port.name, bytes->size(),
                                                 port.operand.view.bytes()));
    }
    RETURN_IF_ERROR(deps_.device.Copy(Address(port.operand.ref, slot), bytes->data(),
                                      static_cast<int64_t>(bytes->size()), streams_[0]));
  }
  return absl::OkStatus();
}

absl::Status Executor::RunSegment(BoundSegment& bound, const Action& action, int slot) {
  const bool captures = deps_.capture && deps_.device.can_capture() && deps_.freed == Freed::kKeep &&
                        timeline_ == nullptr && !bound.has_collectives;
  BoundSegment::Replays& replays = bound.replays[action.micro_batch <= 0];
  if (!captures || replays.runs++ == 0) return RunSteps(bound, action, slot);
  if (replays.captured.native == nullptr) {
    RETURN_IF_ERROR(deps_.device.BeginCapture(streams_[0]));
    const absl::Status steps = RunSteps(bound, action, slot);
    absl::StatusOr<Captured> captured = deps_.device.EndCapture(streams_[0]);
    RETURN_IF_ERROR(steps);
    ASSIGN_OR_RETURN(replays.captured, captured);
  }
  return Annotate(deps_.device.Replay(replays.captured, streams_[0]), ToString(action));
}

absl::Status Executor::RunSteps(const BoundSegment& bound, const Action& action, int slot) {
  size_t next_free = 0;
  for (size_t i = 0; i < bound.steps.size(); ++i) {
    const absl::Status s = RunStep(bound.steps[i], action);
    if (!s.ok()) {
      return Annotate(s, absl::StrFormat("%s %s step %d in %s, after %d collectives", bound.program->name,
                                         ToString(action), i, bound.steps[i].step->scope, collectives_));
    }
    if (timeline_ != nullptr) {
      timeline_->steps.push_back({bound.steps[i].step, action});
      RETURN_IF_ERROR(deps_.device.Record(timeline_->timers[timeline_->steps.size()], streams_[0]));
    }
    if (deps_.freed == Freed::kPoison)
      RETURN_IF_ERROR(Poison(*bound.segment, next_free, static_cast<int32_t>(i), slot));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Executor::TimedStep>> Executor::Profile(std::string_view program, const StepScalars& scalars,
                                                                   const Feed& feed) {
  const Program* p = plan_->FindProgram(program);
  if (p == nullptr) return absl::NotFoundError(absl::StrFormat("the plan has no program %s", program));
  size_t steps = 1;
  for (const Action& a : p->actions) {
    for (const Segment& s : p->segments) steps += s.kind == a.kind && s.stage == a.stage ? s.steps.size() : 0;
  }
  Timeline timeline;
  for (size_t i = 0; i < steps; ++i) {
    ASSIGN_OR_RETURN(timeline.timers.emplace_back(), deps_.device.NewTimer());
  }
  RETURN_IF_ERROR(deps_.device.Record(timeline.timers[0], streams_[0]));
  timeline_ = &timeline;
  const absl::Status ran = Run(program, scalars, feed);
  timeline_ = nullptr;
  RETURN_IF_ERROR(ran);
  double at = 0;
  for (size_t i = 0; i < timeline.steps.size(); ++i) {
    ASSIGN_OR_RETURN(timeline.steps[i].seconds, deps_.device.Seconds(timeline.timers[i], timeline.timers[i + 1]));
    timeline.steps[i].begin = at;
    at += timeline.steps[i].seconds;
  }
  return std::move(timeline.steps);
}

absl::Status Executor::Poison(const Segment& segment, size_t& next, int32_t step, int slot) {
  for (; next < segment.frees.size() && segment.frees[next].after_step == step; ++next) {
    const Segment::Free& f = segment.frees[next];
    RETURN_IF_ERROR(deps_.device.Fill(Address(f.ref, slot), 0xFF, f.bytes, streams_[0]));
  }
  return absl::OkStatus();
}

KernelArgs Executor::ArgsOf(const BoundStep& b, bool overwrite) {
  return {.op = *b.step->op,
          .in = b.in,
          .out = b.out,
          .overwrite = overwrite,
          .workspace = b.workspace,
          .scalars = device_scalars_,
          .key = b.step->key,
          .stream = streams_[b.step->stream],
          .pool = deps_.pool,
          .device = &deps_.device};
}

absl::Status Executor::RunStep(const BoundStep& b, const Action& action) {
  const Step& step = *b.step;
  const Stream stream = streams_[step.stream];
  switch (step.kind) {
    case Step::kLaunch: return step.kernel->run(ArgsOf(b, action.micro_batch <= 0));
    case Step::kCollective: ++collectives_; return comms_[step.comm]->Issue({&b.call, 1}, stream);
    case Step::kCopy: return deps_.device.Copy(b.out[0].data, b.in[0].data, b.in[0].bytes(), stream);
    case Step::kRecord: return deps_.device.Record(events_[step.event], stream);
    case Step::kWait: return deps_.device.Wait(stream, events_[step.event]);
  }
  return absl::InternalError("unknown step");
}

absl::Status Executor::CopyNow(void* to, const void* from, int64_t bytes) {
  RETURN_IF_ERROR(deps_.device.Copy(to, from, bytes, streams_[0]));
  return deps_.device.Drain();
}

absl::Status Executor::ReadState(const PlannedState& state, std::span<std::byte> host) {
  return CopyNow(host.data(), StateBytes(state).data(), static_cast<int64_t>(host.size()));
}
absl::Status Executor::WriteState(const PlannedState& state, std::span<const std::byte> host) {
  return CopyNow(StateBytes(state).data(), host.data(), static_cast<int64_t>(host.size()));
}

absl::StatusOr<TensorRef> Executor::ReadOutput(std::string_view program, std::string_view name,
                                               std::vector<std::byte>& host) {
  ASSIGN_OR_RETURN(TensorRef t, Output(program, name));
  host.resize(static_cast<size_t>(t.bytes()));
  RETURN_IF_ERROR(CopyNow(host.data(), t.data, t.bytes()));
  t.data = host.data();
  return t;
}

std::span<std::byte> Executor::StateBytes(const PlannedState& state) {
  return {Address(state.ref, 0), static_cast<size_t>(state.count * SizeOf(state.spec.dtype))};
}

absl::StatusOr<TensorRef> Executor::Output(std::string_view program, std::string_view name) {
  const Program* p = plan_->FindProgram(program);
  if (p != nullptr) {
    for (const Port& port : p->outputs) {
      if (port.name != name) continue;
      TensorRef t = port.operand.view;
      t.data = Address(port.operand.ref, 0);
      return t;
    }
  }
  return absl::NotFoundError(absl::StrFormat("program %s has no output %s", program, name));
}

absl::Status Executor::Close() {
  absl::Status first;
  for (auto& c : comms_) {
    if (c != nullptr && error_.ok()) first.Update(c->Close());
  }
  first.Update(deps_.device.Close());
  return first;
}

}  // namespace strata
