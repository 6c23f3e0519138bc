#include "parallel/comm/internal/thread_group.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "parallel/comm/internal/reduce.h"

namespace strata::internal {
namespace {

constexpr int kYields = 200;  // before a waiting thread sleeps; there may be more ranks than cores

bool IsReduction(const Collective& c) {
  return c.kind == Collective::kAllReduce || c.kind == Collective::kReduceScatter;
}
bool IsPointToPoint(const Collective& c) { return c.kind == Collective::kSend || c.kind == Collective::kRecv; }

bool Matches(const Collective& a, const Collective& b) {
  if (a.kind != b.kind) return false;
  if (a.kind == Collective::kBarrier) return true;
  return a.count == b.count && a.dtype == b.dtype && (!IsReduction(a) || a.reduce == b.reduce) &&
         (a.kind != Collective::kBroadcast || a.peer == b.peer);
}

void Copy(void* out, const void* in, int64_t bytes) {
  if (out != in && bytes > 0) std::memcpy(out, in, static_cast<size_t>(bytes));
}
std::byte* At(void* p, int64_t bytes) { return static_cast<std::byte*>(p) + bytes; }
const std::byte* At(const void* p, int64_t bytes) { return static_cast<const std::byte*>(p) + bytes; }

// Member r of n makes elements [first, last) of an all-reduce.
struct Slice {
  int64_t first, last;
};
Slice SliceOf(int64_t count, int n, int r) { return {count * r / n, count * (r + 1) / n}; }

size_t NextCall(std::span<const Collective> calls, size_t from, Collective::Kind kind, int peer) {
  while (from < calls.size() && (calls[from].kind != kind || calls[from].peer != peer)) ++from;
  return from;
}

}  // namespace

ThreadGroup::ThreadGroup(CommSpec spec, std::chrono::milliseconds deadline)
    : spec_(std::move(spec)),
      deadline_(deadline),
      members_(std::make_unique<Member[]>(spec_.ranks.size())),
      channels_(std::make_unique<std::atomic<const Collective*>[]>(spec_.ranks.size() * spec_.ranks.size())) {
  for (int i = 0; i < size(); ++i) {
    members_[i].cursors.resize(spec_.ranks.size());
    members_[i].inputs.resize(spec_.ranks.size());
  }
}

// Waiting and failing. All atomics are sequentially consistent: a change is stored before sleepers_ is read, and a sleeper
// counts himself before he looks; a reader says so before he looks at aborted_.

ThreadGroup::Outcome ThreadGroup::Wait(absl::FunctionRef<bool()> ready) {
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

absl::Status ThreadGroup::Fail(absl::Status error) {
  Abort(error);
  return this->error();
}

absl::Status ThreadGroup::Read(int me, absl::FunctionRef<absl::Status()> fn) {
  members_[me].reading = true;
  absl::Status status = aborted_ ? error() : fn();
  members_[me].reading = false;
  return status.ok() ? status : Fail(std::move(status));
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
  const Outcome outcome = Wait([&] { return AllArrived(barrier); });
  if (outcome == Outcome::kReady) return absl::OkStatus();
  return outcome == Outcome::kAborted ? error() : Fail(Late(me, barrier));
}

std::string ThreadGroup::Describe(const Collective& c) const {
  std::string s = Name(c.kind);
  if (c.kind == Collective::kBarrier) return s;
  if (IsReduction(c)) s += c.reduce == ReduceOp::kMax ? " max" : " sum";
  s += absl::StrFormat(" of %d %s", c.count, Name(c.dtype));
  if (c.kind == Collective::kBroadcast) s += absl::StrFormat(" from member %d", c.peer);
  return s;
}

std::string ThreadGroup::Where(int me) const {
  return absl::StrFormat("communicator %s, call %d", spec_.name, members_[me].sequence);
}

absl::Status ThreadGroup::Late(int me, uint64_t barrier) const {
  std::vector<int> late;
  for (int i = 0; i < size(); ++i) {
    if (members_[i].arrived < barrier) late.push_back(spec_.ranks[i]);
  }
  return absl::DeadlineExceededError(absl::StrFormat("%s, %s: rank %s did not arrive within %d ms", Where(me),
                                                     Describe(*members_[me].call), absl::StrJoin(late, ", "),
                                                     deadline_.count()));
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

absl::Status ThreadGroup::CheckCalls(int me) const {
  const Collective& first = *members_[0].call;
  for (int i = 1; i < size(); ++i) {
    if (Matches(first, *members_[i].call)) continue;
    return absl::InternalError(absl::StrFormat("%s differs: rank %d issues %s, rank %d issues %s", Where(me),
                                               spec_.ranks[0], Describe(first), spec_.ranks[i],
                                               Describe(*members_[i].call)));
  }
  const bool divides = first.kind == Collective::kReduceScatter || first.kind == Collective::kAllToAll;
  if (first.count < 0 || (divides && first.count % size() != 0)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s over %d ranks: the count does not divide", Where(me), Describe(first), size()));
  }
  if (first.kind == Collective::kBroadcast && (first.peer < 0 || first.peer >= size())) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: %s of %d", Where(me), Describe(first), size()));
  }
  const Collective& mine = *members_[me].call;
  if (first.kind == Collective::kAllToAll && mine.in == mine.out && mine.count > 0 && size() > 1) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: an all-to-all cannot be in place", Where(me)));
  }
  return absl::OkStatus();
}

absl::Status ThreadGroup::RunCollective(int me, const Collective& c) {
  ++members_[me].sequence;
  members_[me].call = &c;
  RETURN_IF_ERROR(Barrier(me));
  RETURN_IF_ERROR(Read(me, [&] {
    RETURN_IF_ERROR(CheckCalls(me));
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
  if (c.kind == Collective::kBroadcast) Copy(c.out, members_[c.peer].call->in, bytes);
  for (int i = 0; i < size(); ++i) {
    const Collective& peer = *members_[i].call;
    const Slice s = SliceOf(c.count, size(), i);
    if (c.kind == Collective::kAllGather) Copy(At(c.out, i * bytes), peer.in, bytes);
    if (c.kind == Collective::kAllToAll) Copy(At(c.out, i * part), At(peer.in, me * part), part);
    if (c.kind == Collective::kAllReduce && i != me) {
      Copy(At(c.out, s.first * element), At(peer.out, s.first * element), (s.last - s.first) * element);
    }
  }
}

// Sends and receives: for each peer, in order. A sender puts the address of his call into the channel and is done when the
// receiver, who copies from the sender's buffer, has emptied it.

absl::Status ThreadGroup::PointToPoint(int me, std::span<const Collective> calls) {
  for (const Collective& c : calls) {
    if (IsPointToPoint(c) && (c.peer < 0 || c.peer >= size())) {
      return Fail(absl::InvalidArgumentError(
          absl::StrFormat("communicator %s: %s: member %d of %d", spec_.name, Describe(c), c.peer, size())));
    }
  }
  std::vector<Cursor>& cursors = members_[me].cursors;
  for (int p = 0; p < size(); ++p) {
    cursors[p] = {NextCall(calls, 0, Collective::kSend, p), NextCall(calls, 0, Collective::kRecv, p), false};
  }
  while (true) {
    int waiting_for = -1;
    for (int p = 0; p < size(); ++p) {
      RETURN_IF_ERROR(Advance(me, p, calls));
      if (cursors[p].send < calls.size() || cursors[p].recv < calls.size()) waiting_for = p;
    }
    if (waiting_for < 0) return absl::OkStatus();
    const Outcome outcome = Wait([&] {
      for (int p = 0; p < size(); ++p) {
        if (CanAdvance(me, p, calls.size())) return true;
      }
      return false;
    });
    if (outcome == Outcome::kAborted) return error();
    if (outcome == Outcome::kLate) {
      const Cursor& late = cursors[waiting_for];
      return Fail(absl::DeadlineExceededError(absl::StrFormat(
          "communicator %s, %s: rank %d did not arrive within %d ms", spec_.name,
          Describe(calls[std::min(late.send, late.recv)]), spec_.ranks[waiting_for], deadline_.count())));
    }
  }
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
    if (sent.count != c.count || sent.dtype != c.dtype) {
      return absl::InternalError(absl::StrFormat("communicator %s: rank %d issues %s, rank %d issues %s", spec_.name,
                                                 spec_.ranks[peer], Describe(sent), spec_.ranks[me], Describe(c)));
    }
    Copy(c.out, sent.in, c.count * SizeOf(c.dtype));
    return absl::OkStatus();
  }));
  Channel(peer, me) = nullptr;
  Notify();
  return absl::OkStatus();
}

}  // namespace strata::internal
