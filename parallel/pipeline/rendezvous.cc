#include "parallel/pipeline/rendezvous.h"

#include <deque>
#include <map>
#include <set>
#include <string>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/pipeline/timeline.h"

namespace strata {
namespace {

class Rendezvous {
 public:
  Rendezvous(const LoweredSchedule& lowered, Grouping grouping)
      : lowered_(lowered), grouping_(grouping), ranks_(lowered.actions.size()), channels_(lowered.channels.size()) {
    for (size_t r = 0; r < ranks_.size(); ++r) {
      for (const Action& a : lowered_.actions[r]) {
        if (a.kind == Action::kReduce) reductions_[GroupOf(a)].members.insert(static_cast<int>(r));
      }
    }
  }

  absl::Status Run() {
    for (size_t r = 0; r < ranks_.size(); ++r) ready_.push_back(static_cast<int>(r));
    while (!ready_.empty()) {
      const int rank = ready_.front();
      ready_.pop_front();
      RETURN_IF_ERROR(Advance(rank));
    }
    std::string waits;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      const std::vector<Action>& list = lowered_.actions[r];
      if (ranks_[r].next == list.size()) continue;
      absl::StrAppendFormat(&waits, "%srank %d is in %s", waits.empty() ? "" : ", ", r, ToString(list[ranks_[r].next]));
    }
    return waits.empty() ? absl::OkStatus() : absl::FailedPreconditionError("the ranks lock: " + waits);
  }

 private:
  struct Rank {
    size_t next = 0, issued = 0;  // actions before `next` are done; [next, issued) wait
    int waiting = 0;
  };
  struct Message {
    int rank;
    Action action;
  };
  struct Channel {
    std::deque<Message> sends, receives;
  };
  struct Reduction {
    std::set<int> members, arrived;
    bool done() const { return arrived.size() == members.size(); }
  };

  int GroupOf(const Action& a) const { return lowered_.reduce_group[a.stage]; }

  absl::Status Advance(int rank) {
    Rank& state = ranks_[rank];
    const std::vector<Action>& list = lowered_.actions[rank];
    while (state.waiting == 0) {
      state.next = state.issued;
      if (state.next == list.size()) return absl::OkStatus();
      const Action::Kind kind = list[state.next].kind;
      const bool message = kind == Action::kSend || kind == Action::kRecv;
      state.issued = message && grouping_ == Grouping::kGroups ? GroupEnd(list, state.next) : state.next + 1;
      if (message) {
        for (size_t i = state.next; i < state.issued; ++i) RETURN_IF_ERROR(Post(rank, list[i]));
      } else if (kind == Action::kReduce) {
        Arrive(rank, list[state.next]);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Post(int rank, const Action& a) {
    Channel& channel = channels_[lowered_.channel_of[a.edge]];
    (a.kind == Action::kSend ? channel.sends : channel.receives).push_back({rank, a});
    ++ranks_[rank].waiting;
    while (!channel.sends.empty() && !channel.receives.empty()) {
      const Message send = channel.sends.front(), receive = channel.receives.front();
      channel.sends.pop_front();
      channel.receives.pop_front();
      if (send.action.edge != receive.action.edge || send.action.micro_batch != receive.action.micro_batch) {
        return absl::FailedPreconditionError(absl::StrFormat(
            "%s: rank %d comes with %s, rank %d with %s", lowered_.channels[lowered_.channel_of[a.edge]], send.rank,
            ToString(send.action), receive.rank, ToString(receive.action)));
      }
      for (int r : {send.rank, receive.rank}) {
        if (--ranks_[r].waiting == 0 && r != rank) ready_.push_back(r);
      }
    }
    return absl::OkStatus();
  }

  void Arrive(int rank, const Action& a) {
    Reduction& reduction = reductions_[GroupOf(a)];
    if (reduction.done()) return;
    reduction.arrived.insert(rank);
    if (!reduction.done()) {
      ++ranks_[rank].waiting;
      return;
    }
    for (int r : reduction.members) {
      if (r == rank) continue;
      --ranks_[r].waiting;
      ready_.push_back(r);
    }
  }

  const LoweredSchedule& lowered_;
  const Grouping grouping_;
  std::vector<Rank> ranks_;
  std::vector<Channel> channels_;
  std::map<int, Reduction> reductions_;  // by reduce_group
  std::deque<int> ready_;
};

}  // namespace

absl::Status ExecuteRendezvous(const LoweredSchedule& lowered, Grouping grouping) {
  return Rendezvous(lowered, grouping).Run();
}

}  // namespace strata
