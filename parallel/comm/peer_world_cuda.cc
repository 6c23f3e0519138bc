#include "parallel/comm/peer_world.h"

#include <cuda_runtime.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/comm/rank_ledger.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/peer_sum.h"
#include "parallel/comm/internal/peer_communicator.h"

namespace strata {
namespace {

class PeerWorld final : public World {
 public:
  PeerWorld(World& host, const PeerWorldOptions& options) : host_(host), options_(options) {}

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  RankLedger* ledger() override { return host_.ledger(); }

  absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommSpec& group) override {
    const CommSpec named{group.ranks.empty() ? group.name : group.name + " (peers)", group.ranks};
    ASSIGN_OR_RETURN(std::unique_ptr<Communicator> host, host_.Connect(named));
    if (host == nullptr) return std::unique_ptr<Communicator>();
    const auto at = std::find(group.ranks.begin(), group.ranks.end(), rank());
    std::shared_ptr<RankLedger> ledger;
    if (host_.ledger() != nullptr) ledger = host_.ledger()->shared_from_this();
    return internal::ConnectPeers(std::move(host), group, static_cast<int>(at - group.ranks.begin()), std::move(ledger),
                                  options_);
  }

 private:
  World& host_;
  const PeerWorldOptions options_;
};

// Of a rank of the world.
struct Place {
  int64_t machine = 0, process = 0, gpu = -1;
};

absl::StatusOr<Place> MyPlace() {
  int gpu = 0;
  RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&gpu), "cudaGetDevice"));
  return Place{gethostid(), getpid(), gpu};
}

// Why GPU `from` does not read and write the memory of `to`, or empty: from now on it does.
std::string Reach(int from, int to) {
  int can = 0;
  const cudaError_t asked = cudaDeviceCanAccessPeer(&can, from, to);
  cudaError_t error = asked;
  if (asked == cudaSuccess && can != 0) error = cudaDeviceEnablePeerAccess(to, 0);
  const bool enabled = error == cudaSuccess || error == cudaErrorPeerAccessAlreadyEnabled;
  cudaGetLastError();  // not sticky
  if (can != 0 && enabled) return "";
  return absl::StrFormat("GPU %d does not reach the memory of GPU %d%s", from, to,
                         error == cudaSuccess ? "" : absl::StrFormat(" (%s)", cudaGetErrorString(error)));
}

std::string WhyNoPeers(const std::vector<Place>& places, int me) {
  if (places.size() > kMaxPeers) return absl::StrFormat("%d ranks; at most %d", places.size(), kMaxPeers);
  for (int r = 0; r < static_cast<int>(places.size()); ++r) {
    if (r == me) continue;
    if (places[r].machine != places[me].machine || places[r].process != places[me].process) {
      return absl::StrFormat("ranks %d and %d are different processes", me, r);
    }
    if (places[r].gpu == places[me].gpu) return absl::StrFormat("ranks %d and %d share GPU %d", me, r, places[me].gpu);
    std::string why = Reach(static_cast<int>(places[me].gpu), static_cast<int>(places[r].gpu));
    if (!why.empty()) return why;
  }
  return "";
}

}  // namespace

absl::StatusOr<std::unique_ptr<World>> MakePeerWorld(World& host, const PeerWorldOptions& options) {
  CommSpec all{.name = "all (peers)"};
  for (int r = 0; r < host.size(); ++r) all.ranks.push_back(r);
  ASSIGN_OR_RETURN(const std::unique_ptr<Communicator> comm, host.Connect(all));
  ASSIGN_OR_RETURN(const Place mine, MyPlace());
  std::vector<Place> places;
  RETURN_IF_ERROR(internal::Exchange(*comm, std::span<const Place>(&mine, 1), places));
  const std::string why = WhyNoPeers(places, host.rank());
  int64_t number = why.empty() ? 0 : 1;  // of ranks that cannot
  const Collective sum{.kind = Collective::kAllReduce, .dtype = DType::kI64, .count = 1, .in = &number, .out = &number};
  RETURN_IF_ERROR(comm->Issue({&sum, 1}, Stream{}));
  RETURN_IF_ERROR(comm->Close());
  if (number > 0) {
    return absl::FailedPreconditionError("no copies between GPUs: " + (why.empty() ? "another rank cannot" : why));
  }
  return std::make_unique<PeerWorld>(host, options);
}

}  // namespace strata
