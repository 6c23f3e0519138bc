#include "core/exec/executor.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {
namespace {

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Executor>> Executor::Create(std::shared_ptr<const Plan> plan, Deps deps) {
  std::unique_ptr<Executor> e(new Executor(deps));
  e->plan_ = std::move(plan);
  if (RankLedger* ledger = deps.world.ledger()) e->activity_ = &ledger->activity(deps.world.rank());
  for (int t = 0; t < kNumTiers; ++t) {
    if (e->plan_->arena_bytes[t] == 0) continue;
    ASSIGN_OR_RETURN(e->arena_[t], deps.device.Reserve(static_cast<Tier>(t), e->plan_->arena_bytes[t]));
  }
  for (const PlannedStream& s : e->plan_->streams) {
    ASSIGN_OR_RETURN(e->streams_.emplace_back(), deps.device.NewStream(s.name, s.priority));
  }
  for (int i = 0; i < e->plan_->events; ++i) {
    ASSIGN_OR_RETURN(e->events_.emplace_back(), deps.device.NewEvent());
  }
  for (const CommSpec& spec : e->plan_->comms) {
    ASSIGN_OR_RETURN(e->comms_.emplace_back(), deps.world.Connect(spec));
  }
  if (e->streams_.empty()) return absl::InternalError("a plan without streams");
  for (DeviceScalars& d : e->device_scalars_) {
    ASSIGN_OR_RETURN(std::byte* const at, deps.device.Reserve(Tier::kDevice, sizeof(StepScalars)));
    d.at = reinterpret_cast<StepScalars*>(at);
    for (size_t s = 1; s < e->streams_.size(); ++s) {
      ASSIGN_OR_RETURN(d.read.emplace_back(), deps.device.NewEvent());
    }
  }
  for (const Program& p : e->plan_->programs) e->Bind(p);
  for (BoundProgram& p : e->programs_) {
    for (const Action& a : p.program->actions) p.names.push_back("issuing " + p.program->Describe(a));
  }
  RETURN_IF_ERROR(e->Prepare());
  return e;
}

absl::Status Executor::Prepare() {
  bool wrote = false;
  const auto begun = std::chrono::steady_clock::now();
  if (activity_ != nullptr) activity_->Set("preparing its kernels");
  for (const BoundProgram& p : programs_) {
    std::map<const Step*, bool> adds;  // in any of its actions: what accumulates overwrites in the first one only
    for (const BoundSegment& bound : p.bound) {
      for (const BoundStep& b : bound.steps) adds[b.step] |= !b.overwrite;
    }
    std::set<const Step*> prepared;
    for (const BoundSegment& bound : p.bound) {
      for (const BoundStep& b : bound.steps) {
        if (!prepared.insert(b.step).second) continue;
        if (b.step->kind != Step::kLaunch || b.step->kernel->prepare == nullptr) continue;
        wrote = true;
        if (deps_.on_slow_start != nullptr && std::chrono::steady_clock::now() - begun > deps_.patience) {
          std::exchange(deps_.on_slow_start, nullptr)();
        }
        const absl::Status s = b.step->kernel->prepare(ArgsOf(b, !adds.at(b.step), 0));
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
  if (running_on_ != nullptr && (running_on_ != &*p || !overlaps(*p->program))) {
    if (absl::Status s = deps_.device.Drain(); !s.ok()) return Fail(s);
  }
  running_on_ = &*p;
  std::fill(p->peaks.begin(), p->peaks.end(), 0);
  absl::Status s = SendScalars(scalars, overlaps(*p->program));
  if (s.ok()) s = overlaps(*p->program) ? RunIssues(*p, feed) : RunActions(*p, feed);
  Say("waiting for the device");
  if (s.ok()) s = deps_.device.Drain(streams_[0]);
  Say("working between steps");
  if (!s.ok()) return Fail(s);
  for (auto& c : comms_) {  // a collective that was aborted lets the device drain
    if (c == nullptr) continue;
    if (absl::Status polled = c->Poll(); !polled.ok()) return Fail(polled);
  }
  return absl::OkStatus();
}

absl::Status Executor::RunActions(BoundProgram& p, const Feed& feed) {
  for (size_t i = 0; i < p.by_action.size(); ++i) {
    p.times[i].begin = SteadySeconds();
    Say(p.names[i]);
    const absl::Status s = RunAction(p, i, feed);
    p.times[i].end = SteadySeconds();
    RETURN_IF_ERROR(s);
  }
  return absl::OkStatus();
}

absl::Status Executor::RunIssues(BoundProgram& p, const Feed& feed) {
  for (TimedAction& t : p.times) t = {};
  for (const IssuedStep& issue : p.program->issues) {
    TimedAction& time = p.times[issue.action];
    if (time.begin == 0) time.begin = SteadySeconds();
    RETURN_IF_ERROR(RunIssue(p, issue, feed));
    time.end = SteadySeconds();
  }
  const DeviceScalars& mine = device_scalars_[turn_];
  for (size_t i = 0; i < mine.read.size(); ++i) RETURN_IF_ERROR(deps_.device.Record(mine.read[i], streams_[i + 1]));
  return absl::OkStatus();
}

// Without overlap always to the same address, which captured launches hold.
absl::Status Executor::SendScalars(const StepScalars& scalars, bool overlap) {
  turn_ = overlap ? 1 - turn_ : 0;
  const DeviceScalars& mine = device_scalars_[turn_];
  if (overlap) {
    for (Event e : mine.read) RETURN_IF_ERROR(deps_.device.Wait(streams_[0], e));
  }
  scalars_ = scalars;
  return deps_.device.Copy(mine.at, &scalars_, sizeof(scalars_), streams_[0]);
}

absl::Status Executor::RunIssue(BoundProgram& p, const IssuedStep& issue, const Feed& feed) {
  const Stream stream = streams_[issue.stream];
  for (int32_t event : issue.waits) RETURN_IF_ERROR(deps_.device.Wait(stream, events_[event]));
  if (issue.step == IssuedStep::kFeed) RETURN_IF_ERROR(FeedInputs(*p.program, issue.action, feed));
  if (issue.step >= 0) {
    const Action& action = p.program->actions[issue.action];
    const BoundStep& b = p.by_action[issue.action]->steps[issue.step];
    Say(p.names[issue.action], issue.step, b.step->scope);
    if (absl::Status s = Timed(b, action, issue.stream); !s.ok()) return At(s, *p.program, action, issue.step, *b.step);
  }
  return issue.record < 0 ? absl::OkStatus() : deps_.device.Record(events_[issue.record], stream);
}

absl::Status Executor::Timed(const BoundStep& b, const Action& action, int16_t stream) {
  if (timers_ == nullptr) return RunStep(b, stream);
  timers_->steps.push_back({b.step, action, stream});
  const size_t i = 2 * timers_->steps.size();
  RETURN_IF_ERROR(deps_.device.Record(timers_->timers[i - 1], streams_[stream]));
  RETURN_IF_ERROR(RunStep(b, stream));
  return deps_.device.Record(timers_->timers[i], streams_[stream]);
}

absl::Status Executor::RunAction(BoundProgram& p, size_t action, const Feed& feed) {
  RETURN_IF_ERROR(TakeSlots(p, action));
  if (p.by_action[action] != nullptr) {
    if (p.program->actions[action].kind == Action::kF) RETURN_IF_ERROR(FeedInputs(*p.program, action, feed));
    RETURN_IF_ERROR(RunSegment(*p.by_action[action], *p.program, action));
  }
  ReturnSlots(p, action);
  return absl::OkStatus();
}

absl::Status Executor::TakeSlots(BoundProgram& p, size_t action) {
  const Action& a = p.program->actions[action];
  for (size_t i = 0; i < p.holders.size(); ++i) {
    const Slots& slots = p.program->slots[i];
    const int16_t slot = slots.by_action[action].slot;
    if (slot < 0) continue;
    int32_t& holder = p.holders[i].holder[slot];
    const int32_t me = slots.stage < 0 ? a.stage : a.micro_batch;
    if (holder == me) continue;
    if (holder != SlotHolders::kNobody) {
      return absl::InternalError(absl::StrFormat("%s: slot %d is held by %d", p.program->Describe(a), slot, holder));
    }
    holder = me;
    p.peaks[i] = std::max(p.peaks[i], ++p.holders[i].held);
  }
  return absl::OkStatus();
}

void Executor::ReturnSlots(BoundProgram& p, size_t action) {
  for (size_t i = 0; i < p.holders.size(); ++i) {
    const Slots::Use& use = p.program->slots[i].by_action[action];
    if (!use.last) continue;
    p.holders[i].holder[use.slot] = SlotHolders::kNobody;
    --p.holders[i].held;
  }
}

absl::Status Executor::FeedInputs(const Program& program, size_t action, const Feed& feed) {
  const Action& a = program.actions[action];
  for (const Port& port : program.inputs) {
    if (port.replica != a.replica || port.stage != a.stage) continue;
    absl::StatusOr<std::span<const std::byte>> bytes = feed(port, a.micro_batch);
    if (!bytes.ok()) return Annotate(bytes.status(), absl::StrFormat("input %s of %s", port.name, ToString(a)));
    if (static_cast<int64_t>(bytes->size()) != port.operand.view.bytes()) {
      return absl::InternalError(absl::StrFormat("input %s has %d bytes, the plan expects %d", port.name, bytes->size(),
                                                 port.operand.view.bytes()));
    }
    RETURN_IF_ERROR(deps_.device.Copy(Address(port.operand.ref, program, action), bytes->data(),
                                      static_cast<int64_t>(bytes->size()), streams_[0]));
  }
  return absl::OkStatus();
}

absl::Status Executor::RunSegment(BoundSegment& bound, const Program& program, size_t action) {
  const bool captures = deps_.capture && deps_.device.can_capture() && deps_.freed == Freed::kKeep &&
                        timers_ == nullptr && !bound.has_collectives;
  if (!captures) return RunSteps(bound, program, action);
  if (bound.captured.native == nullptr) {
    // First run as they are: kernels may set themselves up then. Captured in the same step, which is the last that allocates.
    RETURN_IF_ERROR(RunSteps(bound, program, action));
    RETURN_IF_ERROR(deps_.device.BeginCapture(streams_[0]));
    const absl::Status steps = RunSteps(bound, program, action);
    absl::StatusOr<Captured> captured = deps_.device.EndCapture(streams_[0]);
    RETURN_IF_ERROR(steps);
    ASSIGN_OR_RETURN(bound.captured, captured);
    return absl::OkStatus();
  }
  return Annotate(deps_.device.Replay(bound.captured, streams_[0]), ToString(program.actions[action]));
}

absl::Status Executor::At(const absl::Status& s, const Program& program, const Action& a, int step,
                          const Step& code) const {
  if (a.edge >= 0) return Annotate(s, program.Describe(a));
  return Annotate(s, absl::StrFormat("%s step %d in %s, after %d collectives", program.Describe(a), step, code.scope,
                                     collectives_));
}

absl::Status Executor::RunSteps(const BoundSegment& bound, const Program& program, size_t action) {
  const Action& a = program.actions[action];
  size_t next_free = 0;
  for (size_t i = 0; i < bound.steps.size(); ++i) {
    const BoundStep& b = bound.steps[i];
    if (activity_ != nullptr) activity_->Step(static_cast<int64_t>(i), b.step->scope);
    if (absl::Status s = Timed(b, a, b.step->stream); !s.ok()) return At(s, program, a, static_cast<int>(i), *b.step);
    if (deps_.freed == Freed::kPoison) {
      RETURN_IF_ERROR(Poison(*bound.segment, next_free, static_cast<int32_t>(i), program, action));
    }
  }
  return absl::OkStatus();
}

const Executor::BoundProgram* Executor::Find(std::string_view name) const {
  const auto p =
      std::find_if(programs_.begin(), programs_.end(), [&](const BoundProgram& b) { return b.program->name == name; });
  return p == programs_.end() ? nullptr : &*p;
}
std::span<const Executor::TimedAction> Executor::Timeline(std::string_view program) const {
  const BoundProgram* p = Find(program);
  return p == nullptr ? std::span<const TimedAction>() : p->times;
}
std::span<const int> Executor::PeakSlots(std::string_view program) const {
  const BoundProgram* p = Find(program);
  return p == nullptr ? std::span<const int>() : p->peaks;
}

absl::StatusOr<std::vector<Executor::TimedStep>> Executor::Profile(std::string_view program, const StepScalars& scalars,
                                                                   const Feed& feed) {
  const BoundProgram* p = Find(program);
  if (p == nullptr) return absl::NotFoundError(absl::StrFormat("the plan has no program %s", program));
  size_t steps = 0;
  for (const BoundSegment* s : p->by_action) steps += s != nullptr ? s->steps.size() : 0;
  while (kept_timers_.size() < 2 * steps + 1) {
    ASSIGN_OR_RETURN(kept_timers_.emplace_back(), deps_.device.NewTimer());
  }
  StepTimers timeline{.timers = kept_timers_, .steps = {}};
  RETURN_IF_ERROR(deps_.device.Drain());
  RETURN_IF_ERROR(deps_.device.Record(timeline.timers[0], streams_[0]));
  timers_ = &timeline;
  absl::Status ran = Run(program, scalars, feed);
  timers_ = nullptr;
  if (ran.ok()) ran = deps_.device.Drain();
  RETURN_IF_ERROR(ran);
  for (size_t i = 0; i < timeline.steps.size(); ++i) {
    TimedStep& t = timeline.steps[i];
    const Event begin = timeline.timers[2 * i + 1], end = timeline.timers[2 * i + 2];
    ASSIGN_OR_RETURN(t.begin, deps_.device.Seconds(timeline.timers[0], begin));
    ASSIGN_OR_RETURN(t.seconds, deps_.device.Seconds(begin, end));
  }
  return std::move(timeline.steps);
}

absl::Status Executor::Poison(const Segment& segment, size_t& next, int32_t step, const Program& program,
                              size_t action) {
  for (; next < segment.frees.size() && segment.frees[next].after_step == step; ++next) {
    const Segment::Free& f = segment.frees[next];
    RETURN_IF_ERROR(deps_.device.Fill(Address(f.ref, program, action), 0xFF, f.bytes, streams_[0]));
  }
  return absl::OkStatus();
}

KernelArgs Executor::ArgsOf(const BoundStep& b, bool overwrite, int16_t stream) {
  return {.op = *b.step->op,
          .in = b.in,
          .out = b.out,
          .overwrite = overwrite,
          .workspace = b.workspace,
          .scalars = device_scalars_[turn_].at,
          .key = b.step->key,
          .stream = streams_[stream],
          .pool = deps_.pool,
          .device = &deps_.device};
}

absl::Status Executor::RunStep(const BoundStep& b, int16_t on) {
  const Step& step = *b.step;
  const Stream stream = streams_[on];
  switch (step.kind) {
    case Step::kLaunch: return step.kernel->run(ArgsOf(b, b.overwrite, on));
    case Step::kCollective: ++collectives_; return comms_[step.comm]->Issue(b.calls, stream);
    case Step::kCopy: return deps_.device.Copy(b.out[0].data, b.in[0].data, b.in[0].bytes(), stream);
    case Step::kRecord: return deps_.device.Record(events_[step.event], stream);
    case Step::kWait: return deps_.device.Wait(stream, events_[step.event]);
  }
  return absl::InternalError("unknown step");
}

absl::Status Executor::CopyNow(void* to, const void* from, int64_t bytes) {
  RETURN_IF_ERROR(deps_.device.Drain());
  RETURN_IF_ERROR(deps_.device.Copy(to, from, bytes, streams_[0]));
  return deps_.device.Drain(streams_[0]);
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
  RETURN_IF_ERROR(deps_.device.Copy(host.data(), t.data, t.bytes(), streams_[0]));  // Run() has waited for it
  RETURN_IF_ERROR(deps_.device.Drain(streams_[0]));
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
