#include <map>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/collective.h"
#include "core/ops/flat.h"
#include "core/plan/plan.h"
#include "core/plan/shadow_memory.h"
#include "core/plan/sum_blocks.h"
#include "core/plan/verify_calls.h"

namespace strata {
namespace {

// Replays one program on shadow memory.
class Replay {
 public:
  Replay(const Plan& plan, const Program& program) : plan_(plan), program_(program) {
    clocks_.assign(plan.streams.size(), Clock(plan.streams.size(), 0));
    events_.assign(plan.events, Clock(plan.streams.size(), 0));
    for (const Region& r : plan.regions) {
      if (r.kind == Region::kStatic) memory_.Write(r.offset, r.offset + r.bytes, ShadowMemory::kAny, 0, clocks_[0]);
    }
  }

  absl::Status Run(std::vector<IssuedCall>& calls) {
    if (!program_.issues.empty()) return RunIssues(calls);
    for (action_ = 0; action_ < program_.actions.size(); ++action_) {
      const Action& action = program_.actions[action_];
      const int segment = program_.SegmentOf(action);
      if (segment < 0) continue;
      if (action.kind == Action::kF) Feed();
      RETURN_IF_ERROR(RunSegment(program_.segments[segment], calls));
    }
    return absl::OkStatus();
  }

 private:
  enum class Mode : uint8_t { kRead, kWrite };

  std::string Feed() {
    std::string error;
    const Action& action = program_.actions[action_];
    for (const Port& p : program_.inputs) {
      if (error.empty() && p.replica == action.replica && p.stage == action.stage) {
        error = Access(p.operand, Mode::kWrite, 0);
      }
    }
    return error;
  }

  // Two runs in a row: what the first leaves running must not be in the way of the second.
  absl::Status RunIssues(std::vector<IssuedCall>& calls) {
    for (int run = 0; run < 2; ++run) {
      for (const IssuedStep& issue : program_.issues) {
        action_ = static_cast<size_t>(issue.action);
        const Action& action = program_.actions[action_];
        const int segment = program_.SegmentOf(action);
        const Step* step = issue.step < 0 ? nullptr : &program_.segments[segment].steps[issue.step];
        for (int32_t event : issue.waits) WaitFor(event, issue.stream);
        if (step == nullptr) ++clocks_[issue.stream][issue.stream];
        const std::string error = step != nullptr                   ? Check(*step, issue.stream)
                                  : issue.step == IssuedStep::kFeed ? Feed()
                                                                    : ReadOutputs();
        if (!error.empty()) {
          return absl::InternalError(absl::StrFormat(
              "plan: %s step %d (%s) on stream %s: %s", program_.Describe(action), issue.step,
              step == nullptr ? "inputs or outputs" : step->scope, plan_.streams[issue.stream].name, error));
        }
        if (run == 0 && step != nullptr && step->kind == Step::kCollective) {
          calls.push_back({&plan_.comms[step->comm], &program_, &action, step});
        }
        if (issue.record >= 0) events_[issue.record] = clocks_[issue.stream];
      }
    }
    return absl::OkStatus();
  }

  std::string ReadOutputs() {
    std::string error;
    for (const Port& p : program_.outputs) {
      if (error.empty()) error = Access(p.operand, Mode::kRead, 0);
    }
    return error;
  }

  void WaitFor(int32_t event, int16_t stream) {
    Clock& now = clocks_[stream];
    for (size_t s = 0; s < now.size(); ++s) now[s] = std::max(now[s], events_[event][s]);
  }

  absl::Status RunSegment(const Segment& segment, std::vector<IssuedCall>& calls) {
    const Action& action = program_.actions[action_];
    size_t free = 0;
    for (size_t i = 0; i < segment.steps.size(); ++i) {
      const Step& step = segment.steps[i];
      const std::string error = Check(step, step.stream);
      if (!error.empty()) {
        return absl::InternalError(
            absl::StrFormat("plan: %s step %d (%s): %s", program_.Describe(action), i, step.scope, error));
      }
      if (step.kind == Step::kCollective) calls.push_back({&plan_.comms[step.comm], &program_, &action, &step});
      for (; free < segment.frees.size() && segment.frees[free].after_step == static_cast<int32_t>(i); ++free) {
        const auto [begin, end] = Range(segment.frees[free].ref, segment.frees[free].bytes);
        memory_.Forget(begin, end);
      }
    }
    return absl::OkStatus();
  }

  std::pair<int64_t, int64_t> Range(Ref ref, int64_t bytes) const {
    const Region& r = plan_.regions[ref.region];
    const int64_t begin = r.offset + program_.SlotOf(ref.region, action_) * r.bytes + ref.offset;
    return {begin, begin + bytes};
  }

  // In a slot of a stage and in transient memory, a value of one micro-batch is not that of another.
  int64_t ContentOf(const Operand& o) const {
    const Region& region = plan_.regions[o.ref.region];
    if (o.content == Operand::kAnything || region.kind == Region::kStatic) return o.content;
    for (const Slots& s : program_.slots) {
      if (s.region == o.ref.region && s.stage < 0) return o.content;
    }
    constexpr int64_t kValue = (int64_t{1} << 40) - 1;  // without the program
    return (o.content & kValue) | ((static_cast<int64_t>(program_.actions[action_].micro_batch) + 1) << 40);
  }

  std::string Access(const Operand& o, Mode mode, int stream) {
    const Region& region = plan_.regions[o.ref.region];
    if (o.ref.offset < 0 || o.ref.offset + o.view.bytes() > region.bytes)
      return "an operand reaches outside " + region.name;
    const auto [begin, end] = Range(o.ref, o.view.bytes());
    const Clock& now = clocks_[stream];
    if (begin == end) return "";
    return mode == Mode::kRead ? memory_.Read(begin, end, ContentOf(o), stream, now)
                               : memory_.Write(begin, end, ContentOf(o), stream, now);
  }

  // Bytes from input i to output k where a collective on flat tensors works in place, or pack finds a part in its place;
  // -1 where they must be apart.
  static int64_t InPlaceShift(const Step& step, size_t k, size_t i) {
    const int64_t size = SizeOf(step.in[i].view.dtype);
    if (const PackOp* pack = dynamic_cast<const PackOp*>(step.op.get())) return -pack->offsets()[i] * size;
    const auto* collective = dynamic_cast<const CollectiveOp*>(step.op.get());
    const Shape &in = step.in[i].view.origin, &out = step.out[k].view.origin;
    if (collective == nullptr || !collective->in_place() || in.rank != 1) return -1;
    return (out[0] - in[0]) * size;
  }

  // An output may share bytes with an input only where the op says so, or where a collective works in place.
  std::string CheckOverlap(const Step& step) {
    for (size_t k = 0; k < step.out.size(); ++k) {
      const auto [ob, oe] = Range(step.out[k].ref, step.out[k].view.bytes());
      for (size_t i = 0; i < step.in.size(); ++i) {
        const auto [ib, ie] = Range(step.in[i].ref, step.in[i].view.bytes());
        if (oe <= ib || ie <= ob) continue;
        const bool shared = step.op != nullptr && (step.op->Aliases(static_cast<int>(k)) == static_cast<int>(i) ||
                                                   (k == 0 && step.op->MayOverwrite(static_cast<int>(i))));
        if (shared && ib == ob && ie == oe) continue;
        if (ob - ib == InPlaceShift(step, k, i)) continue;
        if (i == SumBlocksOp::kSent && dynamic_cast<const SumBlocksOp*>(step.op.get()) != nullptr) continue;
        return absl::StrFormat("output %d overlaps input %d", k, i);
      }
      for (size_t j = 0; j < k; ++j) {
        const auto [b, e] = Range(step.out[j].ref, step.out[j].view.bytes());
        if (oe > b && e > ob) return absl::StrFormat("output %d overlaps output %d", k, j);
      }
    }
    return "";
  }

  std::string Check(const Step& step, int16_t stream) {
    Clock& now = clocks_[stream];
    ++now[stream];
    if (step.kind == Step::kRecord) {
      events_[step.event] = now;
      return "";
    }
    if (step.kind == Step::kWait) {
      WaitFor(step.event, stream);
      return "";
    }
    std::string error = CheckOverlap(step);
    for (const Operand& o : step.in) {
      if (error.empty()) error = Access(o, Mode::kRead, stream);
    }
    if (error.empty() && step.workspace_bytes > 0) {
      const auto [begin, end] = Range(step.workspace, step.workspace_bytes);
      error = memory_.Write(begin, end, ShadowMemory::kAny, stream, now);
    }
    for (const Operand& o : step.out) {
      if (error.empty()) error = Access(o, Mode::kWrite, stream);
    }
    return error;
  }

  const Plan& plan_;
  const Program& program_;
  size_t action_ = 0;  // the one that runs
  ShadowMemory memory_;
  std::vector<Clock> clocks_, events_;
};

}  // namespace

absl::Status VerifyPlans(std::span<const Plan> plans) {
  std::map<std::string, std::vector<std::vector<IssuedCall>>> programs;  // [program][rank]
  for (size_t rank = 0; rank < plans.size(); ++rank) {
    for (const Program& p : plans[rank].programs) {
      std::vector<std::vector<IssuedCall>>& by_rank = programs[p.name];
      by_rank.resize(plans.size());
      const absl::Status s = Replay(plans[rank], p).Run(by_rank[rank]);
      if (!s.ok()) return Annotate(s, absl::StrFormat("rank %d", rank));
    }
  }
  if (plans.size() == 1) return absl::OkStatus();
  for (const auto& [name, by_rank] : programs) RETURN_IF_ERROR(VerifyCalls(by_rank));
  return absl::OkStatus();
}

}  // namespace strata
