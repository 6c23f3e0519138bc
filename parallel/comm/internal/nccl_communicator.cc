#include "parallel/comm/internal/nccl_communicator.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/plan/edge_name.h"
#include "parallel/comm/internal/calls.h"
#include "parallel/comm/internal/hang_report.h"

namespace strata::internal {
namespace {

constexpr std::chrono::seconds kUntilLook{2}, kLook{1};      // for ranks whose processes have ended
constexpr std::chrono::microseconds kSpin{200}, kSleep{50};  // while NCCL works in the background

ncclDataType_t NcclType(DType t) {
  constexpr ncclDataType_t kType[] = {ncclFloat64, ncclFloat32, ncclBfloat16, ncclInt64, ncclInt32, ncclUint8};
  static_assert(static_cast<int>(DType::kF64) == 0 && static_cast<int>(DType::kBF16) == 2 &&
                static_cast<int>(DType::kU8) == 5);
  return kType[static_cast<int>(t)];
}
ncclRedOp_t NcclOp(ReduceOp op) { return op == ReduceOp::kMax ? ncclMax : ncclSum; }

}  // namespace

NcclCommunicator::NcclCommunicator(std::shared_ptr<const Shared> shared, CommSpec spec,
                                   std::unique_ptr<Communicator> host)
    : shared_(std::move(shared)),
      lib_(shared_->lib),
      spec_(std::move(spec)),
      me_(static_cast<int>(std::find(spec_.ranks.begin(), spec_.ranks.end(), shared_->rank) - spec_.ranks.begin())),
      host_(std::move(host)),
      record_(shared_->ledger, shared_->rank, spec_) {}

NcclCommunicator::~NcclCommunicator() {
  if (comm_ != nullptr) lib_.CommAbort(comm_);  // nobody closed it
  for (const Pending& p : pending_) {
    for (cudaEvent_t e : {p.begun, p.ended}) {
      if (e != nullptr) cudaEventDestroy(e);
    }
  }
  if (barrier_ != nullptr) cudaFree(barrier_);
}

absl::Status NcclCommunicator::Init(const ncclUniqueId& id) {
  for (Pending& p : pending_) {
    for (cudaEvent_t* e : {&p.begun, &p.ended}) {
      RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(e, cudaEventDisableTiming), "cudaEventCreate"));
    }
  }
  RETURN_IF_ERROR(CudaStatus(cudaMalloc(&barrier_, sizeof(int)), "cudaMalloc"));
  const NcclWorldOptions& o = shared_->options;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = o.launch == NcclLaunch::kDirect ? 1 : 0;
  if (const int ctas = NamesEdge(spec_.name) ? o.edge_ctas : o.collective_ctas; ctas > 0) config.maxCTAs = ctas;
  if (o.buffers == NcclBuffers::kCopyEngine) config.CTAPolicy = NCCL_CTA_POLICY_ZERO;
  RETURN_IF_ERROR(lib_.Check(lib_.CommInitRankConfig(&comm_, size(), id, me_, &config), "ncclCommInitRankConfig"));
  return Settle("ncclCommInitRankConfig");
}

absl::Status NcclCommunicator::Cause() {
  const std::lock_guard lock(mutex_);
  return cause_;
}

absl::Status NcclCommunicator::Issue(std::span<const Collective> calls, Stream stream) {
  if (calls.empty()) return absl::OkStatus();
  const auto native = static_cast<cudaStream_t>(stream.native);
  Pending* pending = nullptr;
  {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(cause_);
    if (comm_ == nullptr)
      return absl::FailedPreconditionError(absl::StrFormat("communicator %s is closed", spec_.name));
    issuing_ = true;
    issuing_since_ = Clock::now();
    ++sequence_;
    if (record_.get() != nullptr) record_.get()->Issue();
    if (shared_->options.trace == NcclTrace::kCalls) pending = Begin(calls[0]);
  }
  absl::Status status;
  if (pending != nullptr && pending->sequence == sequence_) {
    status = CudaStatus(cudaEventRecord(pending->begun, native), "cudaEventRecord");
  }
  if (status.ok()) status = Launch(calls, native);
  if (status.ok() && pending != nullptr)
    status = CudaStatus(cudaEventRecord(pending->ended, native), "cudaEventRecord");
  const std::lock_guard lock(mutex_);
  issuing_ = false;
  if (status.ok() && pending != nullptr) End(pending);
  if (cause_.ok() && !status.ok()) cause_ = Annotate(status, internal::Where(spec_, sequence_));
  return cause_;
}

// Where the call is remembered: beside the one before it, where there is no room.
NcclCommunicator::Pending* NcclCommunicator::Begin(const Collective& call) {
  Retire();
  if (last_ - first_ == pending_.size()) return &pending_[(last_ - 1) % pending_.size()];
  Pending& p = pending_[last_ % pending_.size()];
  p = {p.begun, p.ended, sequence_, sequence_, call, {}, Clock::now()};
  if (shared_->ledger != nullptr) p.doing = shared_->ledger->activity(shared_->rank).mine();
  return &p;
}

void NcclCommunicator::End(Pending* pending) {
  pending->until = sequence_;
  if (pending->sequence == sequence_) {
    ++last_;
  } else if (first_ == last_) {  // those that it was remembered with have ended meanwhile, and were forgotten
    --first_;
  }
}

absl::Status NcclCommunicator::Launch(std::span<const Collective> calls, cudaStream_t stream) {
  RETURN_IF_ERROR(lib_.Check(lib_.GroupStart(), "ncclGroupStart"));
  absl::Status status;
  for (const Collective& c : calls) {
    if (status.ok()) status = Enqueue(c, stream);
  }
  const absl::Status ended = lib_.Check(lib_.GroupEnd(), "ncclGroupEnd");
  if (status.ok()) status = ended;
  return status.ok() ? Settle("the launch of a collective") : status;
}

absl::Status NcclCommunicator::Enqueue(const Collective& c, cudaStream_t stream) {
  const auto n = static_cast<size_t>(c.count);
  const ncclDataType_t type = NcclType(c.dtype);
  const auto check = [&](ncclResult_t r) { return lib_.Check(r, Name(c.kind)); };
  switch (c.kind) {
    case Collective::kAllReduce: return check(lib_.AllReduce(c.in, c.out, n, type, NcclOp(c.reduce), comm_, stream));
    case Collective::kReduceScatter:
      return check(lib_.ReduceScatter(c.in, c.out, n / spec_.ranks.size(), type, NcclOp(c.reduce), comm_, stream));
    case Collective::kAllGather: return check(lib_.AllGather(c.in, c.out, n, type, comm_, stream));
    case Collective::kBroadcast: return check(lib_.Broadcast(c.in, c.out, n, type, c.peer, comm_, stream));
    case Collective::kSend: return check(lib_.Send(c.in, n, type, c.peer, comm_, stream));
    case Collective::kRecv: return check(lib_.Recv(c.out, n, type, c.peer, comm_, stream));
    case Collective::kBarrier: return check(lib_.AllReduce(barrier_, barrier_, 1, ncclInt32, ncclSum, comm_, stream));
    case Collective::kAllToAll: break;
  }
  const size_t each = n / spec_.ranks.size();
  // Of its own where there is one: copy engines do that, and not sends and receives.
  if (lib_.AlltoAll != nullptr) return check(lib_.AlltoAll(c.in, c.out, each, type, comm_, stream));
  const int64_t bytes = static_cast<int64_t>(each) * SizeOf(c.dtype);
  for (int r = 0; r < size(); ++r) {
    RETURN_IF_ERROR(check(lib_.Send(At(c.in, r * bytes), each, type, r, comm_, stream)));
    RETURN_IF_ERROR(check(lib_.Recv(At(c.out, r * bytes), each, type, r, comm_, stream)));
  }
  return absl::OkStatus();
}

// Until NCCL has nothing more to do in the background: first connections are made there, and kernels launched. The rank's
// thread only. It gives up when somebody aborts; a device that takes no more launches is a hang like any other.
absl::Status NcclCommunicator::Settle(const char* what) {
  const Clock::time_point begun = Clock::now();
  while (true) {
    ncclResult_t state = ncclSuccess;
    RETURN_IF_ERROR(lib_.Check(lib_.CommGetAsyncError(comm_, &state), "ncclCommGetAsyncError"));
    if (state != ncclInProgress) return lib_.Check(state, what);
    const Clock::duration waited = Clock::now() - begun;
    if (waited < kSpin) continue;
    RETURN_IF_ERROR(Look());
    if (waited > shared_->options.deadline) {
      return absl::DeadlineExceededError(absl::StrFormat("communicator %s: %s did not end within %d ms", spec_.name,
                                                         what, shared_->options.deadline.count()));
    }
    std::this_thread::sleep_for(kSleep);
  }
}

void NcclCommunicator::Retire() {
  const auto reached = [](cudaEvent_t e) { return cudaEventQuery(e) != cudaErrorNotReady; };
  while (first_ != last_ && reached(pending_[first_ % pending_.size()].ended)) {
    ended_ = pending_[first_ % pending_.size()].until;
    ++first_;
    last_end_ = Clock::now();
  }
  begun_ = std::max(begun_, ended_);
  for (size_t i = first_; i != last_ && reached(pending_[i % pending_.size()].begun); ++i) {
    begun_ = pending_[i % pending_.size()].sequence;  // at least
  }
  if (record_.get() != nullptr) record_.get()->Progress(begun_, ended_);
}

absl::Status NcclCommunicator::Look() {
  const absl::Status elsewhere = host_ == nullptr ? absl::OkStatus() : host_->Poll();
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(cause_);
  if (!elsewhere.ok()) return cause_ = elsewhere;
  if (comm_ == nullptr) return absl::OkStatus();
  if (!issuing_) {  // else the rank's thread asks
    ncclResult_t state = ncclSuccess;
    absl::Status status = lib_.Check(lib_.CommGetAsyncError(comm_, &state), "ncclCommGetAsyncError");
    if (status.ok()) status = lib_.Check(state, "asynchronous error");
    if (!status.ok()) return cause_ = Annotate(status, internal::Where(spec_, sequence_));
  }
  Retire();
  if (first_ == last_) {
    // A direct launch waits itself for the connections of a first call; in the background, Settle() looks at the time.
    const bool stuck = issuing_ && shared_->options.launch == NcclLaunch::kDirect &&
                       Clock::now() - issuing_since_ > shared_->options.deadline;
    if (!stuck) return absl::OkStatus();
    return cause_ = absl::DeadlineExceededError(absl::StrFormat(
               "%s: not launched within %d ms", internal::Where(spec_, sequence_), shared_->options.deadline.count()));
  }
  const Pending& oldest = pending_[first_ % pending_.size()];
  RETURN_IF_ERROR(LookForGone(oldest));
  if (Clock::now() - std::max(oldest.since, last_end_) < shared_->options.deadline) return absl::OkStatus();
  return cause_ = Hung(oldest);
}

// Of a rank whose process has ended nothing will come: no need to wait for the deadline.
absl::Status NcclCommunicator::LookForGone(const Pending& oldest) {
  if (shared_->ledger == nullptr || Clock::now() < next_look_) return absl::OkStatus();
  next_look_ = Clock::now() + kLook;
  if (Clock::now() - std::max(oldest.since, last_end_) < kUntilLook) return absl::OkStatus();
  for (const int r : spec_.ranks) {
    if (!shared_->ledger->gone(r)) continue;
    cause_ =
        absl::UnavailableError(absl::StrFormat("%s, %s: rank %d is gone%s", internal::Where(spec_, oldest.sequence),
                                               Describe(oldest.call), r, WhatTheyDo(*shared_->ledger, spec_, {{r}})));
    return cause_;
  }
  return absl::OkStatus();
}

absl::Status NcclCommunicator::Hung(const Pending& oldest) const {
  const std::string doing = ToString(oldest.doing);
  std::string text = absl::StrFormat("%s, %s%s, has not ended for %d ms", internal::Where(spec_, oldest.sequence),
                                     Describe(oldest.call), doing.empty() ? "" : " (" + doing + ")",
                                     shared_->options.deadline.count());
  if (shared_->ledger == nullptr) {
    return absl::DeadlineExceededError(
        absl::StrFormat("%s: one of ranks %s does not take part, or the link between them is "
                        "stuck",
                        text, absl::StrJoin(spec_.ranks, ", ")));
  }
  const Culprits culprits = FindCulprits(*shared_->ledger, spec_, oldest.sequence, shared_->rank);
  if (!culprits.ranks.empty()) {
    text = absl::StrFormat("rank %s hang%s: %s", absl::StrJoin(culprits.ranks, ", "),
                           culprits.ranks.size() == 1 ? "s" : "", text);
  }
  return absl::DeadlineExceededError(absl::StrFormat("%s: %s", text, culprits.why));
}

void NcclCommunicator::Doom(const absl::Status& cause) {
  const std::lock_guard lock(mutex_);
  if (cause_.ok()) cause_ = cause;
}

void NcclCommunicator::Tell(const absl::Status& cause) {
  if (host_ != nullptr) host_->Abort(cause);
}

void NcclCommunicator::Abort(const absl::Status& cause) {
  Doom(cause);
  Tell(cause);
}

ncclComm_t NcclCommunicator::Take() {
  const std::lock_guard lock(mutex_);
  if (cause_.ok()) return nullptr;
  // A direct launch comes back only when its communicator is aborted.
  if (issuing_ && shared_->options.launch == NcclLaunch::kBackground) return nullptr;
  return std::exchange(comm_, nullptr);
}

void NcclCommunicator::AbortAll(std::span<NcclCommunicator* const> doomed) {
  std::vector<ncclComm_t> comms;
  for (NcclCommunicator* c : doomed) {
    if (ncclComm_t comm = c->Take(); comm != nullptr) comms.push_back(comm);
  }
  if (comms.empty()) return;
  const NcclLibrary& lib = doomed[0]->lib_;
  // Within a group an abort tells the device at once, and frees at the end.
  lib.GroupStart();
  for (ncclComm_t comm : comms) lib.CommAbort(comm);
  lib.GroupEnd();
}

absl::Status NcclCommunicator::Register(const NcclBuffer& buffer, NcclBuffers how) {
  if (how == NcclBuffers::kPlain) return absl::OkStatus();
  if (how == NcclBuffers::kRegistered) {
    if (lib_.CommRegister == nullptr) return absl::OkStatus();
    void*& handle = registered_.emplace_back();
    return lib_.Check(lib_.CommRegister(comm_, buffer.data, static_cast<size_t>(buffer.bytes), &handle),
                      "ncclCommRegister");
  }
  if (lib_.CommWindowRegister == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrFormat("symmetric buffers need NCCL 2.27 or later, found %s", lib_.version));
  }
  ncclWindow_t& window = windows_.emplace_back();
  RETURN_IF_ERROR(lib_.Check(
      lib_.CommWindowRegister(comm_, buffer.data, static_cast<size_t>(buffer.bytes), &window, NCCL_WIN_COLL_SYMMETRIC),
      "ncclCommWindowRegister"));
  return Settle("ncclCommWindowRegister");
}

// The rank's thread has comm_ to itself meanwhile; the watch takes what fails.
absl::Status NcclCommunicator::Close() {
  {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(cause_);
    if (comm_ == nullptr) return absl::OkStatus();
    issuing_ = true;
    issuing_since_ = Clock::now();
  }
  const auto finalize = [&]() -> absl::Status {
    for (ncclWindow_t w : windows_) {
      RETURN_IF_ERROR(lib_.Check(lib_.CommWindowDeregister(comm_, w), "ncclCommWindowDeregister"));
    }
    for (void* handle : registered_) {
      RETURN_IF_ERROR(lib_.Check(lib_.CommDeregister(comm_, handle), "ncclCommDeregister"));
    }
    RETURN_IF_ERROR(lib_.Check(lib_.CommFinalize(comm_), "ncclCommFinalize"));
    return Settle("ncclCommFinalize");
  };
  const absl::Status status = finalize();
  ncclComm_t comm = nullptr;
  {
    const std::lock_guard lock(mutex_);
    issuing_ = false;
    if (cause_.ok() && !status.ok()) cause_ = Annotate(status, "communicator " + spec_.name);
    RETURN_IF_ERROR(cause_);
    std::swap(comm, comm_);
  }
  RETURN_IF_ERROR(lib_.Check(lib_.CommDestroy(comm), "ncclCommDestroy"));
  return host_ == nullptr ? absl::OkStatus() : host_->Close();
}

}  // namespace strata::internal
