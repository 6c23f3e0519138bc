#include "parallel/comm/internal/peer_communicator.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/peer_sum.h"
#include "parallel/comm/internal/calls.h"
#include "parallel/comm/internal/hang_report.h"
#include "parallel/comm/internal/held_record.h"

namespace strata::internal {
namespace {

// What the members of a communicator tell each other once.
struct Member {
  cudaEvent_t ready = nullptr, done = nullptr;  // recorded by this member alone
};
// Where the members of a communicator tell each other what they are about to do, and that it is enqueued.
struct Board {
  static constexpr size_t kMostCalls = 64;       // of one Issue()
  struct alignas(64) Seat {                      // written by one member
    std::atomic<uint64_t> told{0}, enqueued{0};  // Issue()s
    size_t count = 0;
    std::array<Collective, kMostCalls> calls;
  };
  explicit Board(size_t members) : seats(members) {}
  std::vector<Seat> seats;
};

// One for all members, made by the first.
absl::StatusOr<std::shared_ptr<Board>> ShareBoard(Communicator& host, int me) {
  using Holder = std::shared_ptr<Board>;
  const size_t n = host.spec().ranks.size();
  std::unique_ptr<Holder> mine;
  if (me == 0) mine = std::make_unique<Holder>(std::make_shared<Board>(n));
  const Holder* holder = mine.get();
  std::vector<const Holder*> all;
  RETURN_IF_ERROR(Exchange(host, std::span<const Holder* const>(&holder, 1), all));
  Holder board = *all[0];
  const Collective barrier;  // all have theirs before the first one's goes
  RETURN_IF_ERROR(host.Issue({&barrier, 1}, Stream{}));
  return board;
}

// A call in three parts. Each member records `ready` on its stream and tells its buffers; when all have told theirs, streams
// wait for each other's `ready`, the work is enqueued, and each records `done`; when all have, streams wait for each other's
// `done`. An event is recorded anew only after its waiters have enqueued their waits, for they told so by coming to what
// follows. A member whose stream is late delays the others' streams, not their threads.
class PeerCommunicator final : public Communicator {
 public:
  PeerCommunicator(std::unique_ptr<Communicator> host, CommSpec spec, int me, std::vector<Member> members,
                   std::shared_ptr<Board> board, std::shared_ptr<RankLedger> ledger, const PeerWorldOptions& options)
      : host_(std::move(host)),
        spec_(std::move(spec)),
        me_(me),
        members_(std::move(members)),
        board_(std::move(board)),
        ledger_(std::move(ledger)),
        record_(ledger_, spec_.ranks[me], spec_),
        options_(options),
        in_(members_.size()),
        out_(members_.size()) {}
  ~PeerCommunicator() override {
    if (!host_->Poll().ok()) return;  // aborted: others may be about to wait for them
    cudaEventDestroy(members_[me_].ready);
    cudaEventDestroy(members_[me_].done);
  }
  PeerCommunicator(const PeerCommunicator&) = delete;
  PeerCommunicator& operator=(const PeerCommunicator&) = delete;

  const CommSpec& spec() const override { return spec_; }
  absl::Status Poll() override { return host_->Poll(); }
  void Abort(const absl::Status& cause) override { host_->Abort(cause); }
  absl::Status Close() override { return host_->Close(); }

  absl::Status Issue(std::span<const Collective> calls, Stream stream) override {
    absl::Status status = record_.Around([&] { return Issue(calls, static_cast<cudaStream_t>(stream.native)); });
    if (!status.ok() && host_->Poll().ok()) host_->Abort(status);
    return status;
  }

 private:
  int size() const { return static_cast<int>(members_.size()); }

  absl::Status Record(cudaEvent_t event, cudaStream_t stream) {
    return CudaStatus(cudaEventRecord(event, stream), "cudaEventRecord");
  }
  absl::Status Wait(cudaStream_t stream, cudaEvent_t event) {
    return CudaStatus(cudaStreamWaitEvent(stream, event), "cudaStreamWaitEvent");
  }
  absl::Status Copy(void* to, const void* from, int64_t bytes, cudaStream_t stream) {
    if (to == from || bytes == 0) return absl::OkStatus();
    // Within a GPU too by the copy engines: a kernel of the driver's would wait for a product to leave multiprocessors.
    cudaMemcpyAttributes attributes{};
    attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
    attributes.flags = cudaMemcpyFlagPreferOverlapWithCompute;
    const auto size = static_cast<size_t>(bytes);
    size_t first = 0;
    return CudaStatus(cudaMemcpyBatchAsync(&to, &from, &size, 1, &attributes, &first, 1, stream),
                      "cudaMemcpyBatchAsync");
  }

  absl::Status Issue(std::span<const Collective> calls, cudaStream_t stream) {
    const auto messages = std::count_if(calls.begin(), calls.end(), IsPointToPoint);
    if (messages > 0) RETURN_IF_ERROR(PointToPoint(calls, stream));
    if (messages == 0 && calls.size() <= Board::kMostCalls) return Together(calls, stream);
    for (const Collective& c : calls) {
      if (!IsPointToPoint(c)) RETURN_IF_ERROR(Together({&c, 1}, stream));
    }
    return absl::OkStatus();
  }

  // Until every member's count has come to that of this one.
  absl::Status Await(std::atomic<uint64_t> Board::Seat::*count, const Collective& call) {
    const uint64_t mine = board_->seats[me_].*count;
    const auto late = [&](int p) { return (board_->seats[p].*count).load(std::memory_order_acquire) < mine; };
    std::chrono::steady_clock::time_point begun;
    for (int p = 0, spins = 0; p < size();) {
      if (!late(p)) {
        ++p;
        continue;
      }
      if (++spins < 2000) continue;  // they come at the same time, as a rule
      RETURN_IF_ERROR(host_->Poll());
      const auto now = std::chrono::steady_clock::now();
      if (spins == 2000) begun = now;
      if (now - begun > options_.deadline) return Late(call, late);
      if (now - begun > std::chrono::milliseconds(1)) {
        std::this_thread::sleep_for(std::chrono::microseconds(20));
      } else {
        std::this_thread::yield();
      }
    }
    return absl::OkStatus();
  }

  absl::Status Late(const Collective& call, absl::FunctionRef<bool(int)> late) const {
    std::vector<int> ranks;
    for (int p = 0; p < size(); ++p) {
      if (late(p)) ranks.push_back(spec_.ranks[p]);
    }
    return absl::DeadlineExceededError(
        absl::StrFormat("%s, %s: rank %s did not arrive within %d ms%s", Where(spec_, sequence_), Describe(call),
                        absl::StrJoin(ranks, ", "), static_cast<int64_t>(options_.deadline.count()),
                        ledger_ == nullptr ? "" : WhatTheyDo(*ledger_, spec_, ranks)));
  }

  // Each member says what it is about to do, so that calls that differ are told from each other before a byte moves.
  absl::Status Tell(std::span<const Collective> calls) {
    Board::Seat& seat = board_->seats[me_];
    seat.count = calls.size();
    std::copy(calls.begin(), calls.end(), seat.calls.begin());
    seat.told.store(seat.told + 1, std::memory_order_release);
    ++sequence_;
    RETURN_IF_ERROR(Await(&Board::Seat::told, calls[0]));
    for (size_t k = 0; k < calls.size(); ++k) {
      for (const Board::Seat& s : board_->seats) {
        if (s.count != calls.size()) return absl::InternalError(Where(spec_, sequence_) + ": spans differ in length");
      }
      RETURN_IF_ERROR(
          CheckCalls(spec_, sequence_, me_, [&](int i) -> const Collective& { return board_->seats[i].calls[k]; }));
    }
    return absl::OkStatus();
  }

  absl::Status Together(std::span<const Collective> calls, cudaStream_t stream) {
    if (calls.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(Record(members_[me_].ready, stream));
    RETURN_IF_ERROR(Tell(calls));
    for (int p = 0; p < size(); ++p) {
      if (p != me_) RETURN_IF_ERROR(Wait(stream, members_[p].ready));
    }
    for (size_t k = 0; k < calls.size(); ++k) {
      for (int p = 0; p < size(); ++p) {
        const Collective& theirs = board_->seats[p].calls[k];
        in_[p] = theirs.in;
        out_[p] = theirs.out;
      }
      RETURN_IF_ERROR(Work(calls[k], stream));
    }
    RETURN_IF_ERROR(Record(members_[me_].done, stream));
    for (const Collective& c : calls) RETURN_IF_ERROR(CopyOwn(c, stream));
    Board::Seat& seat = board_->seats[me_];
    seat.enqueued.store(seat.enqueued + 1, std::memory_order_release);
    RETURN_IF_ERROR(Await(&Board::Seat::enqueued, calls[0]));
    for (int p = 0; p < size(); ++p) {
      if (p != me_) RETURN_IF_ERROR(Wait(stream, members_[p].done));
    }
    return absl::OkStatus();
  }

  // This member's part. Where it writes into a peer's memory, that is a place which nobody else reads or writes in the call.
  absl::Status Work(const Collective& c, cudaStream_t stream) {
    const int64_t element = SizeOf(c.dtype), bytes = c.count * element, part = bytes / size();
    const Slice mine = SliceOf(c.count, size(), me_);
    switch (c.kind) {
      case Collective::kAllReduce: {
        void* const slice = At(c.out, mine.first * element);
        RETURN_IF_ERROR(Sum(c, mine, slice, stream));
        return Push(slice, (mine.last - mine.first) * element, mine.first * element, stream);
      }
      case Collective::kReduceScatter: return Sum(c, mine, c.out, stream);
      case Collective::kAllGather: return Push(c.in, bytes, me_ * bytes, stream);
      case Collective::kAllToAll:
        for (int i = 1; i < size(); ++i) {
          const int p = (me_ + i) % size();
          RETURN_IF_ERROR(Copy(At(out_[p], me_ * part), At(c.in, p * part), part, stream));
        }
        return absl::OkStatus();
      case Collective::kBroadcast:
        if (me_ != c.peer) return absl::OkStatus();
        RETURN_IF_ERROR(Copy(c.out, c.in, bytes, stream));
        return Push(c.in, bytes, 0, stream);
      default: return absl::OkStatus();  // a barrier
    }
  }

  // What a member gives itself, when the others need not wait for it any more.
  absl::Status CopyOwn(const Collective& c, cudaStream_t stream) {
    const int64_t bytes = c.count * SizeOf(c.dtype), part = bytes / size();
    if (c.kind == Collective::kAllGather) return Copy(At(c.out, me_ * bytes), c.in, bytes, stream);
    if (c.kind == Collective::kAllToAll && !c.own_unread)
      return Copy(At(c.out, me_ * part), At(c.in, me_ * part), part, stream);
    return absl::OkStatus();
  }

  absl::Status Sum(const Collective& c, const Slice& slice, void* out, cudaStream_t stream) {
    for (const void*& in : in_) in = At(in, slice.first * SizeOf(c.dtype));
    return PeerSum(c.reduce, c.dtype, in_, slice.last - slice.first, out, options_.sum_blocks, stream);
  }

  // To all peers, `offset` bytes into their outputs; each member begins with another one.
  absl::Status Push(const void* from, int64_t bytes, int64_t offset, cudaStream_t stream) {
    for (int i = 1; i < size(); ++i) {
      RETURN_IF_ERROR(Copy(At(out_[(me_ + i) % size()], offset), from, bytes, stream));
    }
    return absl::OkStatus();
  }

  // Receivers tell senders where to, senders copy there and tell when they have.
  absl::Status PointToPoint(std::span<const Collective> calls, cudaStream_t stream) {
    std::vector<Collective>& told = messages_;
    std::vector<Collective>& theirs = received_;
    told.clear();
    theirs.assign(calls.size(), {});
    RETURN_IF_ERROR(Record(members_[me_].ready, stream));
    for (size_t i = 0; i < calls.size(); ++i) {
      if (calls[i].kind == Collective::kRecv)
        told.push_back(Message(Collective::kSend, calls[i].peer, &calls[i], nullptr));
      if (calls[i].kind == Collective::kSend)
        told.push_back(Message(Collective::kRecv, calls[i].peer, nullptr, &theirs[i]));
    }
    RETURN_IF_ERROR(host_->Issue(told, Stream{}));
    for (size_t i = 0; i < calls.size(); ++i) {
      const Collective& c = calls[i];
      if (c.kind != Collective::kSend) continue;
      RETURN_IF_ERROR(CheckPair(spec_, me_, c, c.peer, theirs[i]));
      RETURN_IF_ERROR(Wait(stream, members_[c.peer].ready));
      RETURN_IF_ERROR(Copy(theirs[i].out, c.in, c.count * SizeOf(c.dtype), stream));
    }
    RETURN_IF_ERROR(Record(members_[me_].done, stream));
    for (Collective& m : told) {  // the other way
      m.kind = m.kind == Collective::kSend ? Collective::kRecv : Collective::kSend;
      m.in = m.kind == Collective::kSend ? &done_ : nullptr;
      m.out = m.kind == Collective::kRecv ? &done_ : nullptr;
      m.count = static_cast<int64_t>(sizeof(done_));
    }
    RETURN_IF_ERROR(host_->Issue(told, Stream{}));
    for (const Collective& c : calls) {
      if (c.kind == Collective::kRecv) RETURN_IF_ERROR(Wait(stream, members_[c.peer].done));
    }
    return absl::OkStatus();
  }

  static Collective Message(Collective::Kind kind, int peer, const Collective* in, Collective* out) {
    return {.kind = kind,
            .dtype = DType::kU8,
            .count = static_cast<int64_t>(sizeof(Collective)),
            .peer = peer,
            .in = in,
            .out = out};
  }

  const std::unique_ptr<Communicator> host_;
  const CommSpec spec_;
  const int me_;
  const std::vector<Member> members_;
  const std::shared_ptr<Board> board_;
  const std::shared_ptr<RankLedger> ledger_;  // may be null
  HeldRecord record_;
  const PeerWorldOptions options_;
  uint64_t sequence_ = 0;  // of collectives
  // Scratch, for calls allocate nothing.
  std::vector<const void*> in_;  // of the running call, by member
  std::vector<void*> out_;
  std::vector<Collective> messages_, received_;
  int64_t done_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> ConnectPeers(std::unique_ptr<Communicator> host, CommSpec spec, int me,
                                                           std::shared_ptr<RankLedger> ledger,
                                                           const PeerWorldOptions& options) {
  Member mine;
  for (cudaEvent_t* e : {&mine.ready, &mine.done}) {
    RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(e, cudaEventDisableTiming), "cudaEventCreate"));
  }
  std::vector<Member> members;
  RETURN_IF_ERROR(Exchange(*host, std::span<const Member>(&mine, 1), members));
  ASSIGN_OR_RETURN(std::shared_ptr<Board> board, ShareBoard(*host, me));
  return std::make_unique<PeerCommunicator>(std::move(host), std::move(spec), me, std::move(members), std::move(board),
                                            std::move(ledger), options);
}

}  // namespace strata::internal
