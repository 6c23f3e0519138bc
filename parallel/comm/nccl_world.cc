#include "parallel/comm/nccl_world.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "parallel/comm/internal/nccl_communicator.h"
#include "parallel/comm/internal/nccl_library.h"
#include "parallel/comm/internal/nccl_watch.h"

namespace strata {
namespace {

using internal::NcclBuffer;
using internal::NcclCommunicator;
using internal::NcclLibrary;
using internal::NcclWatch;

// Ends the watch over a communicator before it goes.
class Watched final : public Communicator {
 public:
  Watched(std::unique_ptr<NcclCommunicator> inner, std::shared_ptr<NcclWatch> watch)
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
  absl::Status Close() override { return inner_->Close(); }

 private:
  const std::unique_ptr<NcclCommunicator> inner_;
  const std::shared_ptr<NcclWatch> watch_;
};

// Whether all ranks have the same numbers.
absl::StatusOr<bool> Agree(Communicator& host, std::vector<int64_t> numbers) {
  const size_t n = numbers.size();
  for (size_t i = 0; i < n; ++i) numbers.push_back(-numbers[i]);
  const Collective call{.kind = Collective::kAllReduce,
                        .reduce = ReduceOp::kMax,
                        .dtype = DType::kI64,
                        .count = static_cast<int64_t>(numbers.size()),
                        .in = numbers.data(),
                        .out = numbers.data()};
  RETURN_IF_ERROR(host.Issue({&call, 1}, Stream{}));
  bool same = true;
  for (size_t i = 0; i < n; ++i) same = same && numbers[i] == -numbers[n + i];
  return same;
}

class Nccl final : public NcclWorld {
 public:
  Nccl(World& host, NcclLibrary lib, int gpu, const NcclWorldOptions& options)
      : host_(host), watch_(std::make_shared<NcclWatch>(gpu, host.rank())) {
    auto shared = std::make_shared<NcclCommunicator::Shared>();
    shared->lib = std::move(lib);
    shared->rank = host.rank();
    shared->options = options;
    if (host.ledger() != nullptr) shared->ledger = host.ledger()->shared_from_this();
    shared_ = std::move(shared);
  }

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  RankLedger* ledger() override { return host_.ledger(); }

  DeviceMemory memory() override {
    if (shared_->options.buffers == NcclBuffers::kPlain || shared_->lib.MemAlloc == nullptr) return {};
    return {.allocate = [shared = shared_, buffers = buffers_](int64_t bytes) -> absl::StatusOr<void*> {
              void* data = nullptr;
              const ncclResult_t result = shared->lib.MemAlloc(&data, static_cast<size_t>(bytes));
              if (result != ncclSuccess) {
                cudaGetLastError();  // not sticky
                return absl::ResourceExhaustedError(absl::StrFormat("ncclMemAlloc of %d bytes", bytes));
              }
              buffers->push_back({data, bytes});
              return data;
            },
            .free = [shared = shared_](void* data) { shared->lib.MemFree(data); }};
  }

  absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommSpec& group) override {
    const CommSpec named{group.ranks.empty() ? group.name : group.name + " (host)", group.ranks};
    ASSIGN_OR_RETURN(std::unique_ptr<Communicator> host, host_.Connect(named));
    if (host == nullptr) return std::unique_ptr<Communicator>();
    ncclUniqueId id{};
    if (group.ranks[0] == rank()) {
      RETURN_IF_ERROR(shared_->lib.Check(shared_->lib.GetUniqueId(&id), "ncclGetUniqueId"));
    }
    const Collective broadcast{.kind = Collective::kBroadcast,
                               .dtype = DType::kU8,
                               .count = static_cast<int64_t>(sizeof(id)),
                               .peer = 0,
                               .in = &id,
                               .out = &id};
    RETURN_IF_ERROR(host->Issue({&broadcast, 1}, Stream{}));
    ASSIGN_OR_RETURN(const NcclBuffers how, HowToRegister(*host));
    auto made = std::make_unique<NcclCommunicator>(shared_, group, std::move(host));
    absl::Status status = made->Init(id);
    for (const NcclBuffer& b : *buffers_) {
      if (status.ok()) status = made->Register(b, how);
    }
    if (!status.ok()) return Annotate(status, "communicator " + group.name);
    return std::make_unique<Watched>(std::move(made), watch_);
  }

 private:
  // Windows must be of one size on all ranks.
  absl::StatusOr<NcclBuffers> HowToRegister(Communicator& host) const {
    const NcclBuffers how = shared_->options.buffers;
    if (how != NcclBuffers::kSymmetric && how != NcclBuffers::kCopyEngine) return how;
    std::vector<int64_t> sizes = {static_cast<int64_t>(buffers_->size()), 0, 0, 0};
    for (size_t i = 0; i < buffers_->size(); ++i) sizes[1 + i % 3] = sizes[1 + i % 3] * 31 + (*buffers_)[i].bytes;
    ASSIGN_OR_RETURN(const bool same, Agree(host, sizes));
    return same ? how : NcclBuffers::kRegistered;
  }

  World& host_;
  std::shared_ptr<const NcclCommunicator::Shared> shared_;
  const std::shared_ptr<std::vector<NcclBuffer>> buffers_ = std::make_shared<std::vector<NcclBuffer>>();
  const std::shared_ptr<NcclWatch> watch_;
};

}  // namespace

NcclWorldOptions OptionsOf(const CommConfig& config, std::chrono::milliseconds deadline) {
  const int ctas = static_cast<int>(config.nccl_ctas);
  return {.deadline = deadline,
          .collective_ctas = ctas > 0 ? ctas : CommConfig::kCollectiveCtas,
          .edge_ctas = ctas > 0 ? ctas : CommConfig::kEdgeCtas,
          .launch = config.launch,
          .buffers = config.buffers};
}

absl::StatusOr<std::unique_ptr<NcclWorld>> MakeNcclWorld(World& host, const NcclWorldOptions& options) {
  ASSIGN_OR_RETURN(NcclLibrary lib, NcclLibrary::Open());
  int gpu = 0;
  RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&gpu), "cudaGetDevice"));
  return std::make_unique<Nccl>(host, std::move(lib), gpu, options);
}

std::string NcclStatusLine() {
  const absl::StatusOr<NcclLibrary> lib = NcclLibrary::Open();
  return lib.ok() ? "NCCL " + lib->version : std::string(lib.status().message());
}

}  // namespace strata
