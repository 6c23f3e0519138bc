#include "tests/testing/gpu_rank.h"

#include <algorithm>

#include "core/base/status.h"

namespace strata::testing {
namespace {

float At(int rank, int64_t i) { return static_cast<float>((i * 7 + rank * 13) % 101); }

}  // namespace

absl::StatusOr<GpuRank> GpuRank::Open(World& host, int64_t count, const MakeWorld& make) {
  GpuRank r;
  ASSIGN_OR_RETURN(r.device, CudaDevice::Open(host.rank()));
  ASSIGN_OR_RETURN(r.world, make(host, *r.device));
  ASSIGN_OR_RETURN(r.stream, r.device->NewStream("test", Priority::kNormal));
  for (float** buffer : {&r.in, &r.out}) {
    ASSIGN_OR_RETURN(std::byte* const bytes, r.device->Reserve(Tier::kDevice, count * 4));
    *buffer = reinterpret_cast<float*>(bytes);
  }
  return r;
}

absl::Status GpuRank::Write(float* to, const std::vector<float>& values) {
  RETURN_IF_ERROR(device->Copy(to, values.data(), static_cast<int64_t>(values.size()) * 4, stream));
  return device->Drain();
}

absl::StatusOr<std::vector<float>> GpuRank::Read(const float* from, int64_t count) {
  std::vector<float> values(count);
  RETURN_IF_ERROR(device->Drain());
  RETURN_IF_ERROR(device->Copy(values.data(), from, count * 4, stream));
  RETURN_IF_ERROR(device->Drain());
  return values;
}

std::vector<float> RankInput(int rank, int64_t count) {
  std::vector<float> v(count);
  for (int64_t i = 0; i < count; ++i) v[i] = At(rank, i);
  return v;
}

std::vector<float> ExpectedOfTwo(const Collective& c, int me) {
  std::vector<float> v;
  const int64_t half = c.count / 2;
  const auto joined = [&](int64_t i) {
    return c.reduce == ReduceOp::kMax ? std::max(At(0, i), At(1, i)) : At(0, i) + At(1, i);
  };
  switch (c.kind) {
    case Collective::kAllReduce:
      for (int64_t i = 0; i < c.count; ++i) v.push_back(joined(i));
      break;
    case Collective::kReduceScatter:
      for (int64_t i = me * half; i < (me + 1) * half; ++i) v.push_back(joined(i));
      break;
    case Collective::kAllGather:
      for (int r = 0; r < 2; ++r) {
        for (int64_t i = 0; i < c.count; ++i) v.push_back(At(r, i));
      }
      break;
    case Collective::kAllToAll:
      for (int r = 0; r < 2; ++r) {
        for (int64_t i = me * half; i < (me + 1) * half; ++i) v.push_back(At(r, i));
      }
      break;
    default: v = RankInput(c.peer, c.count);
  }
  return v;
}

}  // namespace strata::testing
