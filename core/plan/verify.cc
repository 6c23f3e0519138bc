#include <algorithm>
#include <tuple>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/collective.h"
#include "core/ops/flat.h"
#include "core/plan/plan.h"
#include "core/plan/shadow_memory.h"

namespace strata {
namespace {

struct Issued {
  Collective::Kind kind;
  ReduceOp reduce;
  DType dtype;
  int64_t count;
  int peer;
  std::string where;
};
using Sequences = std::map<std::vector<int>, std::vector<Issued>>;  // by the communicator's ranks

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

  absl::Status Run(Sequences& sequences) {
    for (const Action& action : program_.actions) {
      const auto segment = std::find_if(program_.segments.begin(), program_.segments.end(), [&](const Segment& s) {
        return s.kind == action.kind && s.stage == action.stage;
      });
      if (segment == program_.segments.end()) continue;
      micro_batch_ = std::max(0, action.micro_batch);
      if (action.kind == Action::kF) {
        for (const Port& p : program_.inputs) Access(p.operand, Mode::kWrite, 0);
      }
      size_t free = 0;
      for (size_t i = 0; i < segment->steps.size(); ++i) {
        const Step& step = segment->steps[i];
        std::string error = Check(step);
        if (!error.empty()) {
          return absl::InternalError(
              absl::StrFormat("plan: %s %s step %d (%s): %s", program_.name, ToString(action), i, step.scope, error));
        }
        if (step.kind == Step::kCollective) {
          sequences[plan_.comms[step.comm].ranks].push_back(
              {step.call.kind, step.call.reduce, step.call.dtype, step.call.count, step.call.peer,
               absl::StrFormat("%s %s %s", program_.name, ToString(action), step.scope)});
        }
        for (; free < segment->frees.size() && segment->frees[free].after_step == static_cast<int32_t>(i); ++free) {
          const auto [begin, end] = Range(segment->frees[free].ref, segment->frees[free].bytes);
          memory_.Forget(begin, end);
        }
      }
    }
    return absl::OkStatus();
  }

 private:
  enum class Mode : uint8_t { kRead, kWrite };

  std::pair<int64_t, int64_t> Range(Ref ref, int64_t bytes) const {
    const Region& r = plan_.regions[ref.region];
    const int64_t begin = r.offset + (micro_batch_ % r.slots) * r.bytes + ref.offset;
    return {begin, begin + bytes};
  }

  std::string Access(const Operand& o, Mode mode, int stream) {
    const Region& region = plan_.regions[o.ref.region];
    if (o.ref.offset < 0 || o.ref.offset + o.view.bytes() > region.bytes)
      return "an operand reaches outside " + region.name;
    const auto [begin, end] = Range(o.ref, o.view.bytes());
    const Clock& now = clocks_[stream];
    if (begin == end) return "";
    return mode == Mode::kRead ? memory_.Read(begin, end, o.content, stream, now)
                               : memory_.Write(begin, end, o.content, stream, now);
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
        return absl::StrFormat("output %d overlaps input %d", k, i);
      }
      for (size_t j = 0; j < k; ++j) {
        const auto [b, e] = Range(step.out[j].ref, step.out[j].view.bytes());
        if (oe > b && e > ob) return absl::StrFormat("output %d overlaps output %d", k, j);
      }
    }
    return "";
  }

  std::string Check(const Step& step) {
    Clock& now = clocks_[step.stream];
    ++now[step.stream];
    if (step.kind == Step::kRecord) {
      events_[step.event] = now;
      return "";
    }
    if (step.kind == Step::kWait) {
      for (size_t s = 0; s < now.size(); ++s) now[s] = std::max(now[s], events_[step.event][s]);
      return "";
    }
    std::string error = CheckOverlap(step);
    for (const Operand& o : step.in) {
      if (error.empty()) error = Access(o, Mode::kRead, step.stream);
    }
    if (error.empty() && step.workspace_bytes > 0) {
      const auto [begin, end] = Range(step.workspace, step.workspace_bytes);
      error = memory_.Write(begin, end, ShadowMemory::kAny, step.stream, now);
    }
    for (const Operand& o : step.out) {
      if (error.empty()) error = Access(o, Mode::kWrite, step.stream);
    }
    return error;
  }

  const Plan& plan_;
  const Program& program_;
  int micro_batch_ = 0;
  ShadowMemory memory_;
  std::vector<Clock> clocks_, events_;
};

std::string ToString(const Issued& c) {
  return absl::StrFormat("%s of %d %s in %s", Name(c.kind), c.count, Name(c.dtype), c.where);
}

bool Meet(const Issued& a, const Issued& b) {
  return std::tie(a.kind, a.reduce, a.dtype, a.count) == std::tie(b.kind, b.reduce, b.dtype, b.count);
}

bool IsPointToPoint(const Issued& c) { return c.kind == Collective::kSend || c.kind == Collective::kRecv; }

absl::Status CompareCollectives(const std::vector<int>& ranks, const std::vector<Sequences>& by_rank) {
  const auto collectives = [&](int rank) {
    std::vector<Issued> list;
    if (const auto it = by_rank[rank].find(ranks); it != by_rank[rank].end()) {
      std::copy_if(it->second.begin(), it->second.end(), std::back_inserter(list),
                   [](auto& c) { return !IsPointToPoint(c); });
    }
    return list;
  };
  const std::vector<Issued> first = collectives(ranks[0]);
  for (int rank : ranks) {
    const std::vector<Issued> mine = collectives(rank);
    for (size_t i = 0; i < std::max(first.size(), mine.size()); ++i) {
      if (i < first.size() && i < mine.size() && Meet(first[i], mine[i])) continue;
      return absl::InternalError(absl::StrFormat(
          "plan: call %d of a communicator differs: rank %d issues %s, rank %d %s", i, ranks[0],
          i < first.size() ? ToString(first[i]) : "nothing", rank, i < mine.size() ? ToString(mine[i]) : "nothing"));
    }
  }
  return absl::OkStatus();
}

// What rank a sends to b on a communicator, in order, is what b receives from a.
absl::Status MatchSends(const std::vector<int>& ranks, const std::vector<Sequences>& by_rank) {
  const auto calls = [&](int me, int peer, Collective::Kind kind) {
    std::vector<Issued> list;
    if (const auto it = by_rank[ranks[me]].find(ranks); it != by_rank[ranks[me]].end()) {
      std::copy_if(it->second.begin(), it->second.end(), std::back_inserter(list),
                   [&](auto& c) { return c.kind == kind && c.peer == peer; });
    }
    return list;
  };
  const int n = static_cast<int>(ranks.size());
  for (int a = 0; a < n; ++a) {
    for (int b = 0; b < n; ++b) {
      const std::vector<Issued> sends = calls(a, b, Collective::kSend), recvs = calls(b, a, Collective::kRecv);
      bool equal = sends.size() == recvs.size();
      for (size_t i = 0; equal && i < sends.size(); ++i) {
        equal = sends[i].dtype == recvs[i].dtype && sends[i].count == recvs[i].count;
      }
      if (equal) continue;
      return absl::InternalError(
          absl::StrFormat("plan: rank %d sends %d messages to rank %d, which receives %d or others", ranks[a],
                          sends.size(), ranks[b], recvs.size()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status VerifyPlans(std::span<const Plan> plans) {
  std::map<std::string, std::vector<Sequences>> programs;  // [program][rank]
  for (size_t rank = 0; rank < plans.size(); ++rank) {
    for (const Program& p : plans[rank].programs) {
      std::vector<Sequences>& by_rank = programs[p.name];
      by_rank.resize(plans.size());
      const absl::Status s = Replay(plans[rank], p).Run(by_rank[rank]);
      if (!s.ok()) return Annotate(s, absl::StrFormat("rank %d", rank));
    }
  }
  if (plans.size() == 1) return absl::OkStatus();
  for (const auto& [name, by_rank] : programs) {
    for (const Plan& plan : plans) {
      for (const CommSpec& comm : plan.comms) {
        RETURN_IF_ERROR(CompareCollectives(comm.ranks, by_rank));
        RETURN_IF_ERROR(MatchSends(comm.ranks, by_rank));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace strata
