#include "parallel/comm/nccl_world.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "parallel/comm/internal/calls.h"
#include "parallel/comm/internal/nccl_library.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;
using internal::NcclLibrary;

ncclDataType_t NcclType(DType t) {
  constexpr ncclDataType_t kType[] = {ncclFloat64, ncclFloat32, ncclBfloat16, ncclInt64, ncclInt32, ncclUint8};
  static_assert(static_cast<int>(DType::kF64) == 0 && static_cast<int>(DType::kBF16) == 2 &&
                static_cast<int>(DType::kU8) == 5);
  return kType[static_cast<int>(t)];
}
ncclRedOp_t NcclOp(ReduceOp op) { return op == ReduceOp::kMax ? ncclMax : ncclSum; }

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const NcclLibrary& lib, CommSpec spec, int me, std::chrono::milliseconds deadline)
      : lib_(lib), spec_(std::move(spec)), me_(me), deadline_(deadline) {}
  ~NcclCommunicator() override {
    if (comm_ != nullptr) lib_.CommAbort(comm_);
    for (const Pending& p : pending_) {
      if (p.done != nullptr) cudaEventDestroy(p.done);
    }
    if (barrier_ != nullptr) cudaFree(barrier_);
  }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  absl::Status Init(const ncclUniqueId& id) {
    for (Pending& p : pending_) {
      RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(&p.done, cudaEventDisableTiming), "cudaEventCreate"));
    }
    RETURN_IF_ERROR(CudaStatus(cudaMalloc(&barrier_, sizeof(int)), "cudaMalloc"));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    RETURN_IF_ERROR(lib_.Check(lib_.CommInitRankConfig(&comm_, size(), id, me_, &config), "ncclCommInitRankConfig"));
    return Settle("ncclCommInitRankConfig");
  }

  const CommSpec& spec() const override { return spec_; }

  absl::Status Issue(std::span<const Collective> calls, Stream stream) override {
    if (calls.empty()) return absl::OkStatus();
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(cause_);
    const auto native = static_cast<cudaStream_t>(stream.native);
    RETURN_IF_ERROR(lib_.Check(lib_.GroupStart(), "ncclGroupStart"));
    absl::Status status;
    for (const Collective& c : calls) {
      if (status.ok()) status = Enqueue(c, native);
    }
    const absl::Status ended = lib_.Check(lib_.GroupEnd(), "ncclGroupEnd");
    if (status.ok()) status = ended;
    if (status.ok()) status = Settle("the launch of a collective");
    if (!status.ok()) return Fail(Annotate(status, internal::Where(spec_, sequence_)));
    return Remember(calls[0], native);
  }

  absl::Status Poll() override {
    const std::lock_guard lock(mutex_);
    return Look();
  }

  void Abort(const absl::Status& cause) override {
    const std::lock_guard lock(mutex_);
    Fail(cause).IgnoreError();
  }

  absl::Status Close() override {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(cause_);
    if (comm_ == nullptr) return absl::OkStatus();
    RETURN_IF_ERROR(lib_.Check(lib_.CommFinalize(comm_), "ncclCommFinalize"));
    RETURN_IF_ERROR(Settle("ncclCommFinalize"));
    const ncclComm_t comm = comm_;
    comm_ = nullptr;
    return lib_.Check(lib_.CommDestroy(comm), "ncclCommDestroy");
  }

 private:
  struct Pending {  // a collective on its way
    cudaEvent_t done = nullptr;
    uint64_t sequence = 0;
    Collective call;
    Clock::time_point since;
  };

  int size() const { return static_cast<int>(spec_.ranks.size()); }

  // Until NCCL has nothing more to do in the background: first connections are made there.
  absl::Status Settle(const char* what) {
    const Clock::time_point limit = Clock::now() + deadline_;
    for (int spins = 0;; ++spins) {
      ncclResult_t state = ncclSuccess;
      RETURN_IF_ERROR(lib_.Check(lib_.CommGetAsyncError(comm_, &state), "ncclCommGetAsyncError"));
      if (state != ncclInProgress) return lib_.Check(state, what);
      if (Clock::now() > limit) {
        return absl::DeadlineExceededError(absl::StrFormat("communicator %s: %s did not end within %d ms", spec_.name,
                                                           what, static_cast<int64_t>(deadline_.count())));
      }
      if (spins > 100) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

  absl::Status Enqueue(const Collective& c, cudaStream_t stream) {
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
    const int64_t bytes = static_cast<int64_t>(each) * SizeOf(c.dtype);
    for (int r = 0; r < size(); ++r) {
      RETURN_IF_ERROR(check(lib_.Send(internal::At(c.in, r * bytes), each, type, r, comm_, stream)));
      RETURN_IF_ERROR(check(lib_.Recv(internal::At(c.out, r * bytes), each, type, r, comm_, stream)));
    }
    return absl::OkStatus();
  }

  // Ended ones make room. Where there is none, an older one still tells of a hang.
  absl::Status Remember(const Collective& call, cudaStream_t stream) {
    ++sequence_;
    Retire();
    if (end_ - begin_ == pending_.size()) return absl::OkStatus();
    Pending& p = pending_[end_ % pending_.size()];
    p.sequence = sequence_ - 1;
    p.call = call;
    p.since = Clock::now();
    RETURN_IF_ERROR(CudaStatus(cudaEventRecord(p.done, stream), "cudaEventRecord"));
    ++end_;
    return absl::OkStatus();
  }

  void Retire() {
    while (begin_ != end_ && cudaEventQuery(pending_[begin_ % pending_.size()].done) != cudaErrorNotReady) {
      ++begin_;
      last_end_ = Clock::now();
    }
  }

  absl::Status Look() {
    RETURN_IF_ERROR(cause_);
    if (comm_ == nullptr) return absl::OkStatus();
    ncclResult_t state = ncclSuccess;
    absl::Status status = lib_.Check(lib_.CommGetAsyncError(comm_, &state), "ncclCommGetAsyncError");
    if (status.ok()) status = lib_.Check(state, "asynchronous error");
    if (!status.ok()) return Fail(Annotate(status, internal::Where(spec_, sequence_)));
    Retire();
    if (begin_ == end_) return absl::OkStatus();
    const Pending& oldest = pending_[begin_ % pending_.size()];
    if (Clock::now() - std::max(oldest.since, last_end_) < deadline_) return absl::OkStatus();
    return Fail(absl::DeadlineExceededError(absl::StrFormat(
        "%s, %s: not ended within %d ms, so one of ranks %s does not take part or the link between them is stuck",
        internal::Where(spec_, oldest.sequence), internal::Describe(oldest.call),
        static_cast<int64_t>(deadline_.count()), Ranks())));
  }

  std::string Ranks() const {
    std::string text;
    for (int r : spec_.ranks) text += absl::StrFormat("%s%d", text.empty() ? "" : ", ", r);
    return text;
  }

  // The first cause stays. NCCL's kernels end, so that the stream drains.
  absl::Status Fail(const absl::Status& cause) {
    if (!cause_.ok()) return cause_;
    cause_ = cause;
    if (comm_ != nullptr) lib_.CommAbort(comm_);
    comm_ = nullptr;
    return cause_;
  }

  const NcclLibrary lib_;
  const CommSpec spec_;
  const int me_;
  const std::chrono::milliseconds deadline_;
  std::mutex mutex_;  // guards what follows
  ncclComm_t comm_ = nullptr;
  absl::Status cause_;
  uint64_t sequence_ = 0;
  std::array<Pending, 64> pending_;
  size_t begin_ = 0, end_ = 0;  // of pending_, modulo its size
  Clock::time_point last_end_ = Clock::now();
  int* barrier_ = nullptr;
};

// What a world and its communicators share: the watch over them.
class Watch {
 public:
  explicit Watch(int gpu) : thread_([this, gpu] { Run(gpu); }) {}
  ~Watch() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  void Add(NcclCommunicator* c) {
    const std::lock_guard lock(mutex_);
    watched_.push_back(c);
  }
  void Remove(NcclCommunicator* c) {
    const std::lock_guard lock(mutex_);
    std::erase(watched_, c);
  }

 private:
  void Run(int gpu) {
    cudaSetDevice(gpu);
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, std::chrono::milliseconds(20), [&] { return stop_; })) {
      for (NcclCommunicator* c : watched_) {
        const absl::Status status = c->Poll();
        if (status.ok()) continue;
        for (NcclCommunicator* other : watched_) other->Abort(status);
        break;
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;                       // guarded by mutex_, as is
  std::vector<NcclCommunicator*> watched_;  // not owned
  std::thread thread_;
};

// Ends the watch over a communicator before it goes.
class Watched final : public Communicator {
 public:
  Watched(std::unique_ptr<NcclCommunicator> inner, std::shared_ptr<Watch> watch)
      : inner_(std::move(inner)), watch_(std::move(watch)) {
    watch_->Add(inner_.get());
  }
  ~Watched() override { watch_->Remove(inner_.get()); }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

  const CommSpec& spec() const override { return inner_->spec(); }
  absl::Status Issue(std::span<const Collective> calls, Stream stream) override { return inner_->Issue(calls, stream); }
  absl::Status Poll() override { return inner_->Poll(); }
  void Abort(const absl::Status& cause) override { inner_->Abort(cause); }
  absl::Status Close() override {
    watch_->Remove(inner_.get());
    return inner_->Close();
  }

 private:
  const std::unique_ptr<NcclCommunicator> inner_;
  const std::shared_ptr<Watch> watch_;
};

class NcclWorld final : public World {
 public:
  NcclWorld(World& host, NcclLibrary lib, int gpu, const NcclWorldOptions& options)
      : host_(host), lib_(std::move(lib)), options_(options), watch_(std::make_shared<Watch>(gpu)) {}

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }

  absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommSpec& group) override {
    ASSIGN_OR_RETURN(const std::unique_ptr<Communicator> host, host_.Connect(group));
    if (host == nullptr) return std::unique_ptr<Communicator>();
    const auto at = std::find(group.ranks.begin(), group.ranks.end(), rank());
    const int me = static_cast<int>(at - group.ranks.begin());
    ncclUniqueId id{};
    if (me == 0) RETURN_IF_ERROR(lib_.Check(lib_.GetUniqueId(&id), "ncclGetUniqueId"));
    const Collective broadcast{.kind = Collective::kBroadcast,
                               .dtype = DType::kU8,
                               .count = static_cast<int64_t>(sizeof(id)),
                               .peer = 0,
                               .in = &id,
                               .out = &id};
    RETURN_IF_ERROR(host->Issue({&broadcast, 1}, Stream{}));
    RETURN_IF_ERROR(host->Close());
    auto made = std::make_unique<NcclCommunicator>(lib_, group, me, options_.deadline);
    const absl::Status status = made->Init(id);
    if (!status.ok()) return Annotate(status, "communicator " + group.name);
    return std::make_unique<Watched>(std::move(made), watch_);
  }

 private:
  World& host_;
  const NcclLibrary lib_;
  const NcclWorldOptions options_;
  const std::shared_ptr<Watch> watch_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<World>> MakeNcclWorld(World& host, const NcclWorldOptions& options) {
  ASSIGN_OR_RETURN(NcclLibrary lib, NcclLibrary::Open());
  int gpu = 0;
  RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&gpu), "cudaGetDevice"));
  return std::make_unique<NcclWorld>(host, std::move(lib), gpu, options);
}

std::string NcclStatusLine() {
  const absl::StatusOr<NcclLibrary> lib = NcclLibrary::Open();
  return lib.ok() ? "NCCL " + lib->version : std::string(lib.status().message());
}

}  // namespace strata
