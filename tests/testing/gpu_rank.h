#pragma once
// Two ranks with a GPU each, and what collectives make of small whole numbers, whose sums are exact.

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"
#include "core/exec/cuda_device.h"

namespace strata::testing {

// A rank with its GPU, a world on it, a stream and two buffers of f32.
struct GpuRank {
  std::unique_ptr<CudaDevice> device;
  std::unique_ptr<World> world;
  Stream stream;
  float *in = nullptr, *out = nullptr;

  // GPU `rank` of this machine. `make` makes the world, before any memory is reserved.
  using MakeWorld = std::function<absl::StatusOr<std::unique_ptr<World>>(World& host, CudaDevice& device)>;
  static absl::StatusOr<GpuRank> Open(World& host, int64_t count, const MakeWorld& make);

  absl::Status Write(float* to, const std::vector<float>& values);
  absl::StatusOr<std::vector<float>> Read(const float* from, int64_t count);
};

std::vector<float> RankInput(int rank, int64_t count);
// What a call of two ranks with these inputs gives rank `me`; of a broadcast `peer` is the root.
std::vector<float> ExpectedOfTwo(const Collective& call, int me);

}  // namespace strata::testing
