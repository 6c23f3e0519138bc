#include "core/plan/verify_calls.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {
namespace {

bool IsPointToPoint(const IssuedCall& c) {
  return c.step->call.kind == Collective::kSend || c.step->call.kind == Collective::kRecv;
}

std::string Where(const IssuedCall& c) {
  const std::string action = c.program->Describe(*c.action);
  return IsPointToPoint(c) && c.action->edge >= 0 ? action : absl::StrFormat("%s %s", action, c.step->scope);
}

std::string ToString(const IssuedCall& c) {
  return absl::StrFormat("%s of %d %s in %s", Name(c.step->call.kind), c.step->call.count, Name(c.step->call.dtype),
                         Where(c));
}

bool Agree(const IssuedCall& x, const IssuedCall& y) {
  const Collective &a = x.step->call, &b = y.step->call;
  return std::tie(a.kind, a.reduce, a.dtype, a.count, x.step->calls) ==
         std::tie(b.kind, b.reduce, b.dtype, b.count, y.step->calls);
}

class Calls {
 public:
  explicit Calls(const std::vector<std::vector<IssuedCall>>& by_rank)
      : by_rank_(by_rank), comm_(by_rank.size()), of_comm_(by_rank.size()) {
    std::map<std::pair<std::string, std::vector<int>>, int> ids;
    for (size_t rank = 0; rank < by_rank.size(); ++rank) {
      for (const IssuedCall& c : by_rank[rank]) {
        const auto [it, fresh] = ids.try_emplace({c.comm->name, c.comm->ranks}, static_cast<int>(comms_.size()));
        if (fresh) comms_.push_back(c.comm);
        comm_[rank].push_back(it->second);
        of_comm_[rank][it->second].push_back(&c);
      }
    }
  }

  absl::Status Check() const {
    for (int comm = 0; comm < static_cast<int>(comms_.size()); ++comm) {
      RETURN_IF_ERROR(CompareCollectives(comm));
      RETURN_IF_ERROR(MatchSends(comm));
    }
    return Rendezvous();
  }

 private:
  using List = std::vector<const IssuedCall*>;
  template <typename Select>
  List Of(int rank, int comm, Select select) const {
    List list;
    if (const auto it = of_comm_[rank].find(comm); it != of_comm_[rank].end()) {
      std::copy_if(it->second.begin(), it->second.end(), std::back_inserter(list), select);
    }
    return list;
  }

  absl::Status CompareCollectives(int comm) const {
    const auto collectives = [&](int rank) {
      return Of(rank, comm, [](const IssuedCall* c) { return !IsPointToPoint(*c); });
    };
    const std::vector<int>& ranks = comms_[comm]->ranks;
    const List first = collectives(ranks[0]);
    for (int rank : ranks) {
      const List mine = collectives(rank);
      for (size_t i = 0; i < std::max(first.size(), mine.size()); ++i) {
        if (i < first.size() && i < mine.size() && Agree(*first[i], *mine[i])) continue;
        return absl::InternalError(
            absl::StrFormat("plan: call %d of communicator %s differs: rank %d issues %s, rank %d %s", i,
                            comms_[comm]->name, ranks[0], i < first.size() ? ToString(*first[i]) : "nothing", rank,
                            i < mine.size() ? ToString(*mine[i]) : "nothing"));
      }
    }
    return absl::OkStatus();
  }

  // What a sends to b, in order, is what b receives from a.
  absl::Status MatchSends(int comm) const {
    const std::vector<int>& ranks = comms_[comm]->ranks;
    const auto calls = [&](int me, int peer, Collective::Kind kind) {
      return Of(ranks[me], comm,
                [&](const IssuedCall* c) { return c->step->call.kind == kind && c->step->call.peer == peer; });
    };
    for (int a = 0; a < static_cast<int>(ranks.size()); ++a) {
      for (int b = 0; b < static_cast<int>(ranks.size()); ++b) {
        const List sends = calls(a, b, Collective::kSend), receives = calls(b, a, Collective::kRecv);
        for (size_t i = 0; i < std::max(sends.size(), receives.size()); ++i) {
          if (i < sends.size() && i < receives.size() && Meet(*sends[i], *receives[i])) continue;
          return absl::InternalError(
              absl::StrFormat("plan: message %d of communicator %s: rank %d issues %s, rank %d %s", i,
                              comms_[comm]->name, ranks[a], i < sends.size() ? ToString(*sends[i]) : "nothing",
                              ranks[b], i < receives.size() ? ToString(*receives[i]) : "nothing"));
        }
      }
    }
    return absl::OkStatus();
  }

  // Equal in size and, where they are of a pipeline, of one tensor and micro-batch.
  static bool Meet(const IssuedCall& sent, const IssuedCall& received) {
    const Collective &s = sent.step->call, &r = received.step->call;
    if (s.dtype != r.dtype || s.count != r.count) return false;
    if (sent.action->edge < 0 || received.action->edge < 0) return true;
    const Edge &a = sent.program->edges[sent.action->edge], &b = received.program->edges[received.action->edge];
    return sent.action->micro_batch == received.action->micro_batch && RecvName(a) == RecvName(b);
  }

  // The ranks whose next call must be of the same communicator for this one to complete; for a message, the other end.
  bool Ready(int rank, size_t at, const std::vector<size_t>& next) const {
    const IssuedCall& call = by_rank_[rank][at];
    const int comm = comm_[rank][at];
    const auto is_there = [&](int r) { return next[r] < by_rank_[r].size() && comm_[r][next[r]] == comm; };
    if (!IsPointToPoint(call)) {
      return std::all_of(comms_[comm]->ranks.begin(), comms_[comm]->ranks.end(),
                         [&](int r) { return is_there(r) && !IsPointToPoint(by_rank_[r][next[r]]); });
    }
    const int peer = comms_[comm]->ranks[call.step->call.peer];
    if (!is_there(peer)) return false;
    const Collective& other = by_rank_[peer][next[peer]].step->call;
    const Collective::Kind wanted = call.step->call.kind == Collective::kSend ? Collective::kRecv : Collective::kSend;
    return other.kind == wanted && comms_[comm]->ranks[other.peer] == rank;
  }

  absl::Status Rendezvous() const {
    std::vector<size_t> next(by_rank_.size(), 0);
    std::vector<int> awake;
    for (int rank = static_cast<int>(by_rank_.size()); rank-- > 0;) awake.push_back(rank);
    while (!awake.empty()) {
      const int rank = awake.back();
      awake.pop_back();
      if (next[rank] >= by_rank_[rank].size() || !Ready(rank, next[rank], next)) continue;
      const IssuedCall& call = by_rank_[rank][next[rank]];
      const std::vector<int>& ranks = comms_[comm_[rank][next[rank]]]->ranks;
      std::vector<int> members = ranks;
      if (IsPointToPoint(call)) members = {rank, ranks[call.step->call.peer]};
      for (int r : members) {
        ++next[r];
        awake.push_back(r);
      }
    }
    for (int rank = 0; rank < static_cast<int>(by_rank_.size()); ++rank) {
      if (next[rank] < by_rank_[rank].size()) return Stuck(rank, next);
    }
    return absl::OkStatus();
  }

  // Who waits for whom, from `rank` on until it goes in a circle.
  absl::Status Stuck(int rank, const std::vector<size_t>& next) const {
    std::string text = "plan: ranks wait for each other: ";
    std::set<int> seen;
    while (seen.insert(rank).second && next[rank] < by_rank_[rank].size()) {
      const IssuedCall& call = by_rank_[rank][next[rank]];
      const int comm = comm_[rank][next[rank]];
      int other = rank;
      if (IsPointToPoint(call)) {
        other = comms_[comm]->ranks[call.step->call.peer];
      } else {
        for (int r : comms_[comm]->ranks) {
          if (next[r] >= by_rank_[r].size() || comm_[r][next[r]] != comm) other = r;
        }
      }
      absl::StrAppendFormat(&text, "%srank %d in %s waits for rank %d", seen.size() > 1 ? "; " : "", rank, Where(call),
                            other);
      rank = other;
    }
    if (next[rank] >= by_rank_[rank].size()) absl::StrAppendFormat(&text, ", which has no more calls");
    return absl::InternalError(text);
  }

  const std::vector<std::vector<IssuedCall>>& by_rank_;
  std::vector<const CommSpec*> comms_;
  std::vector<std::vector<int>> comm_;        // [rank][call]: index into comms_
  std::vector<std::map<int, List>> of_comm_;  // [rank], by comm
};

}  // namespace

absl::Status VerifyCalls(const std::vector<std::vector<IssuedCall>>& by_rank) { return Calls(by_rank).Check(); }

}  // namespace strata
