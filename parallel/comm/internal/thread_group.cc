#include "parallel/comm/internal/thread_group.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "parallel/comm/internal/calls.h"
#include "parallel/comm/internal/reduce.h"

namespace strata::internal {
namespace {

constexpr int kYields = 200;  // before a waiting thread sleeps; there may be more ranks than cores

size_t NextCall(std::span<const Collective> calls, size_t from, Collective::Kind kind, int peer) {
  while (from < calls.size() && (calls[from].kind != kind || calls[from].peer != peer)) ++from;
  return from;
}

}  // namespace

ThreadGroup::ThreadGroup(CommSpec spec, std::chrono::milliseconds deadline, std::shared_ptr<WaitLedger> ledger)
    : spec_(std::move(spec)),
      deadline_(deadline),
      ledger_(std::move(ledger)),
      members_(std::make_unique<Member[]>(spec_.ranks.size())),
      channels_(std::make_unique<std::atomic<const Collective*>[]>(spec_.ranks.size() * spec_.ranks.size())) {
  for (int i = 0; i < size(); ++i) {
    members_[i].cursors.resize(spec_.ranks.size());
    members_[i].inputs.resize(spec_.ranks.size());
  }
}

// Waiting and failing. All atomics are sequentially consistent: a change is stored before sleepers_ is read, and a sleeper
// counts himself before he looks; a reader says so before he looks at aborted_.

absl::Status ThreadGroup::Wait(int me, absl::FunctionRef<bool()> ready, WaitLedger::Describe waiting) {
  const int rank = spec_.ranks[me];
  const WaitLedger::Entry entry(*ledger_, rank, waiting);
  const Outcome outcome = Sleep(ready);
  if (outcome == Outcome::kReady) return absl::OkStatus();
  if (outcome == Outcome::kAborted) return error();
  const Waiting own = waiting();
  if (own.late.empty()) return absl::OkStatus();  // they came just now
  return Fail(ledger_->Blame(rank, own, deadline_.count()));
}

ThreadGroup::Outcome ThreadGroup::Sleep(absl::FunctionRef<bool()> ready) {
  for (int i = 0; i < kYields; ++i) {
    if (ready()) return Outcome::kReady;
    if (aborted_) return Outcome::kAborted;
    std::this_thread::yield();
  }
  const auto limit = std::chrono::steady_clock::now() + deadline_;
  std::unique_lock lock(mutex_);
  ++sleepers_;
  const bool woken = wake_.wait_until(lock, limit, [&] { return ready() || aborted_; });
  --sleepers_;
  if (!woken) return Outcome::kLate;
  return ready() ? Outcome::kReady : Outcome::kAborted;
}

void ThreadGroup::Notify() {
  if (sleepers_ == 0) return;
  std::lock_guard lock(mutex_);
  wake_.notify_all();
}

void ThreadGroup::Abort(const absl::Status& cause) {
  STRATA_CHECK(!cause.ok());
  std::lock_guard lock(mutex_);
  if (cause_.ok()) cause_ = cause;
  aborted_ = true;
  wake_.notify_all();
}

absl::Status ThreadGroup::error() const {
  if (!aborted_) return absl::OkStatus();
  std::lock_guard lock(mutex_);
  return cause_;
}

absl::Status ThreadGroup::Fail(const absl::Status& error) {
  Abort(error);
  return this->error();
}

absl::Status ThreadGroup::Read(int me, absl::FunctionRef<absl::Status()> fn) {
  members_[me].reading = true;
  absl::Status status = aborted_ ? error() : fn();
  members_[me].reading = false;
  return status.ok() ? status : Fail(status);
}

void ThreadGroup::WaitForReaders(int me) const {
  for (int i = 0; i < size(); ++i) {
    while (i != me && members_[i].reading) std::this_thread::yield();
  }
}

bool ThreadGroup::AllArrived(uint64_t barrier) const {
  return std::all_of(&members_[0], &members_[size()], [&](const Member& m) { return m.arrived >= barrier; });
}

absl::Status ThreadGroup::Barrier(int me) {
  const uint64_t barrier = ++members_[me].arrived;
  if (AllArrived(barrier)) {
    Notify();
    return absl::OkStatus();
  }
  return Wait(
      me, [&] { return AllArrived(barrier); },
      [&]() -> Waiting {
        const Member& m = members_[me];
        return {absl::StrFormat("%s, %s", Where(spec_, m.sequence), Describe(*m.call)), LateRanks(barrier), spec_};
      });
}

std::vector<int> ThreadGroup::LateRanks(uint64_t barrier) const {
  std::vector<int> late;
  for (int i = 0; i < size(); ++i) {
    if (members_[i].arrived < barrier) late.push_back(spec_.ranks[i]);
  }
  return late;
}

// Collectives: publish the call, barrier, compare calls and make the own part from all members' buffers, barrier. An
// all-reduce then copies the other members' slices, and ends with a third barrier.

absl::Status ThreadGroup::Issue(int me, std::span<const Collective> calls) {
  absl::Status status = error();
  if (status.ok() && std::any_of(calls.begin(), calls.end(), IsPointToPoint)) status = PointToPoint(me, calls);
  for (const Collective& c : calls) {
    if (status.ok() && !IsPointToPoint(c)) status = RunCollective(me, c);
  }
  if (!status.ok()) WaitForReaders(me);
  return status;
}

absl::Status ThreadGroup::RunCollective(int me, const Collective& c) {
  ++members_[me].sequence;
  members_[me].call = &c;
  RETURN_IF_ERROR(Barrier(me));
  RETURN_IF_ERROR(Read(me, [&] {
    RETURN_IF_ERROR(
        CheckCalls(spec_, members_[me].sequence, me, [&](int i) -> const Collective& { return *members_[i].call; }));
    if (IsReduction(c)) {
      ReduceOwnSlice(me, c);
    } else {
      CopyFromPeers(me, c);
    }
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(Barrier(me));
  if (c.kind != Collective::kAllReduce) return absl::OkStatus();
  RETURN_IF_ERROR(Read(me, [&] {
    CopyFromPeers(me, c);
    return absl::OkStatus();
  }));
  return Barrier(me);
}

void ThreadGroup::ReduceOwnSlice(int me, const Collective& c) {
  std::vector<const void*>& inputs = members_[me].inputs;
  for (int i = 0; i < size(); ++i) inputs[i] = members_[i].call->in;
  const Slice s = SliceOf(c.count, size(), me);
  void* out = c.kind == Collective::kAllReduce ? At(c.out, s.first * SizeOf(c.dtype)) : c.out;
  Reduce(c.reduce, c.dtype, inputs, s.first, s.last - s.first, out);
}

void ThreadGroup::CopyFromPeers(int me, const Collective& c) const {
  const int64_t element = SizeOf(c.dtype), bytes = c.count * element, part = bytes / size();
  if (c.kind == Collective::kBroadcast) CopyBytes(c.out, members_[c.peer].call->in, bytes);
  for (int i = 0; i < size(); ++i) {
    const Collective& peer = *members_[i].call;
    const Slice s = SliceOf(c.count, size(), i);
    if (c.kind == Collective::kAllGather) CopyBytes(At(c.out, i * bytes), peer.in, bytes);
    if (c.kind == Collective::kAllToAll) CopyBytes(At(c.out, i * part), At(peer.in, me * part), part);
    if (c.kind == Collective::kAllReduce && i != me) {
      CopyBytes(At(c.out, s.first * element), At(peer.out, s.first * element), (s.last - s.first) * element);
    }
  }
}

// Sends and receives: for each peer, in order. A sender puts the address of his call into the channel and is done when the
// receiver, who copies from the sender's buffer, has emptied it.

absl::Status ThreadGroup::PointToPoint(int me, std::span<const Collective> calls) {
  for (const Collective& c : calls) {
    if (!IsPointToPoint(c)) continue;
    if (absl::Status s = CheckPeer(spec_, c); !s.ok()) return Fail(s);
  }
  std::vector<Cursor>& cursors = members_[me].cursors;
  for (int p = 0; p < size(); ++p) {
    cursors[p] = {NextCall(calls, 0, Collective::kSend, p), NextCall(calls, 0, Collective::kRecv, p), false};
  }
  while (true) {
    bool done = true;
    for (int p = 0; p < size(); ++p) {
      RETURN_IF_ERROR(Advance(me, p, calls));
      done = done && cursors[p].send >= calls.size() && cursors[p].recv >= calls.size();
    }
    if (done) return absl::OkStatus();
    const auto ready = [&] {
      for (int p = 0; p < size(); ++p) {
        if (CanAdvance(me, p, calls.size())) return true;
      }
      return false;
    };
    RETURN_IF_ERROR(Wait(me, ready, [&] { return LatePeers(me, calls); }));
  }
}

Waiting ThreadGroup::LatePeers(int me, std::span<const Collective> calls) const {
  Waiting waiting;
  waiting.spec = spec_;
  for (int p = 0; p < size(); ++p) {
    const Cursor& cursor = members_[me].cursors[p];
    const size_t call = std::min(cursor.send, cursor.recv);
    if (call >= calls.size()) continue;
    waiting.call = absl::StrFormat("communicator %s, %s", spec_.name, Describe(calls[call]));
    waiting.late.push_back(spec_.ranks[p]);
  }
  return waiting;
}

bool ThreadGroup::CanAdvance(int me, int peer, size_t num_calls) {
  const Cursor& cursor = members_[me].cursors[peer];
  return (cursor.send < num_calls && Channel(me, peer) == nullptr) ||
         (cursor.recv < num_calls && Channel(peer, me) != nullptr);
}

absl::Status ThreadGroup::Advance(int me, int peer, std::span<const Collective> calls) {
  Cursor& cursor = members_[me].cursors[peer];
  while (cursor.send < calls.size() && Channel(me, peer) == nullptr) {
    if (cursor.posted) {
      cursor.send = NextCall(calls, cursor.send + 1, Collective::kSend, peer);
    } else {
      Channel(me, peer) = &calls[cursor.send];
      Notify();
    }
    cursor.posted = !cursor.posted;
  }
  while (cursor.recv < calls.size() && Channel(peer, me) != nullptr) {
    RETURN_IF_ERROR(Receive(me, peer, calls[cursor.recv]));
    cursor.recv = NextCall(calls, cursor.recv + 1, Collective::kRecv, peer);
  }
  return absl::OkStatus();
}

absl::Status ThreadGroup::Receive(int me, int peer, const Collective& c) {
  RETURN_IF_ERROR(Read(me, [&]() -> absl::Status {
    const Collective& sent = *Channel(peer, me).load();
    RETURN_IF_ERROR(CheckPair(spec_, peer, sent, me, c));
    CopyBytes(c.out, sent.in, c.count * SizeOf(c.dtype));
    return absl::OkStatus();
  }));
  Channel(peer, me) = nullptr;
  Notify();
  return absl::OkStatus();
}

}  // namespace strata::internal
