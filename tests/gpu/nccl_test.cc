// NCCL's world on two GPUs: every collective on small whole numbers, whose sums are exact, and what a hang looks like.

#include "parallel/comm/nccl_world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "core/base/status.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kRanks = 2;
constexpr int64_t kCount = 1024;  // elements of a buffer, f32

// A rank with its GPU, a stream and two buffers.
struct Rank {
  std::unique_ptr<CudaDevice> device;
  std::unique_ptr<World> world;
  Stream stream;
  float *in = nullptr, *out = nullptr;

  static absl::StatusOr<Rank> Open(World& host, std::chrono::milliseconds deadline) {
    Rank r;
    ASSIGN_OR_RETURN(r.device, CudaDevice::Open(host.rank()));
    ASSIGN_OR_RETURN(r.world, MakeNcclWorld(host, {deadline}));
    ASSIGN_OR_RETURN(r.stream, r.device->NewStream("test", Priority::kNormal));
    for (float** buffer : {&r.in, &r.out}) {
      ASSIGN_OR_RETURN(std::byte* const bytes, r.device->Reserve(Tier::kDevice, kCount * 4));
      *buffer = reinterpret_cast<float*>(bytes);
    }
    return r;
  }
  absl::Status Write(float* to, const std::vector<float>& values) {
    RETURN_IF_ERROR(device->Copy(to, values.data(), static_cast<int64_t>(values.size()) * 4, stream));
    return device->Drain();
  }
  absl::StatusOr<std::vector<float>> Read(const float* from, int64_t count) {
    std::vector<float> values(count);
    RETURN_IF_ERROR(device->Copy(values.data(), from, count * 4, stream));
    RETURN_IF_ERROR(device->Drain());
    return values;
  }
};

std::vector<float> Input(int rank) {
  std::vector<float> v(kCount);
  for (int64_t i = 0; i < kCount; ++i) v[i] = static_cast<float>((i * 7 + rank * 13) % 101);
  return v;
}

std::vector<float> Part(const std::vector<float>& v, int64_t first, int64_t count) {
  return {v.begin() + first, v.begin() + first + count};
}

// What each kind gives rank `me`.
std::vector<float> Expected(Collective::Kind kind, ReduceOp reduce, int me) {
  const std::vector<float> mine = Input(me), other = Input(1 - me), first = Input(0), second = Input(1);
  std::vector<float> all(kCount);
  for (int64_t i = 0; i < kCount; ++i)
    all[i] = reduce == ReduceOp::kMax ? std::max(mine[i], other[i]) : mine[i] + other[i];
  const int64_t half = kCount / 2;
  switch (kind) {
    case Collective::kAllReduce: return all;
    case Collective::kReduceScatter: return Part(all, me * half, half);
    case Collective::kBroadcast: return second;
    case Collective::kAllGather: {
      std::vector<float> v = Part(first, 0, half);
      v.insert(v.end(), second.begin(), second.begin() + half);
      return v;
    }
    case Collective::kAllToAll: {
      std::vector<float> v = Part(first, me * half, half);
      v.insert(v.end(), second.begin() + me * half, second.begin() + (me + 1) * half);
      return v;
    }
    default: return {};
  }
}

TEST(Nccl, EveryCollective) {
  STRATA_NEEDS_GPUS(kRanks);
  const absl::Status status = RunRanks(kRanks, [](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(Rank r, Rank::Open(host, std::chrono::seconds(30)));
    const int me = host.rank();
    ASSIGN_OR_RETURN(const auto comm, r.world->Connect({"pair", {0, 1}}));
    for (const Collective::Kind kind : {Collective::kAllReduce, Collective::kReduceScatter, Collective::kAllGather,
                                        Collective::kAllToAll, Collective::kBroadcast}) {
      for (const ReduceOp reduce : {ReduceOp::kSum, ReduceOp::kMax}) {
        const int64_t count = kind == Collective::kAllGather ? kCount / 2 : kCount;
        RETURN_IF_ERROR(r.Write(r.in, Input(me)));
        RETURN_IF_ERROR(r.Write(r.out, std::vector<float>(kCount, -1)));
        const Collective call{.kind = kind, .reduce = reduce, .count = count, .peer = 1, .in = r.in, .out = r.out};
        RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
        const std::vector<float> want = Expected(kind, reduce, me);
        ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.out, static_cast<int64_t>(want.size())));
        EXPECT_EQ(got, want) << Name(kind) << " on rank " << me;
      }
    }
    // A send and a receive of one span start together.
    RETURN_IF_ERROR(r.Write(r.in, Input(me)));
    const Collective swap[] = {{.kind = Collective::kSend, .count = kCount, .peer = 1 - me, .in = r.in},
                               {.kind = Collective::kRecv, .count = kCount, .peer = 1 - me, .out = r.out}};
    RETURN_IF_ERROR(comm->Issue(swap, r.stream));
    const Collective barrier{.kind = Collective::kBarrier};
    RETURN_IF_ERROR(comm->Issue({&barrier, 1}, r.stream));
    ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.out, kCount));
    EXPECT_EQ(got, Input(1 - me));
    RETURN_IF_ERROR(r.device->Drain());
    return comm->Close();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Nccl, ShardsInPlace) {
  STRATA_NEEDS_GPUS(kRanks);
  const absl::Status status = RunRanks(kRanks, [](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(Rank r, Rank::Open(host, std::chrono::seconds(30)));
    const int me = host.rank();
    const int64_t half = kCount / 2;
    ASSIGN_OR_RETURN(const auto comm, r.world->Connect({"pair", {0, 1}}));
    RETURN_IF_ERROR(r.Write(r.in, Input(me)));
    float* const shard = r.in + me * half;
    const Collective scatter{.kind = Collective::kReduceScatter, .count = kCount, .in = r.in, .out = shard};
    RETURN_IF_ERROR(comm->Issue({&scatter, 1}, r.stream));
    const Collective gather{.kind = Collective::kAllGather, .count = half, .in = shard, .out = r.in};
    RETURN_IF_ERROR(comm->Issue({&gather, 1}, r.stream));
    ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.in, kCount));
    EXPECT_EQ(got, Expected(Collective::kAllReduce, ReduceOp::kSum, me));
    return comm->Close();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Nccl, ACollectiveThatDoesNotEndIsNamed) {
  STRATA_NEEDS_GPUS(kRanks);
  const absl::Status status = RunRanks(kRanks, [](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(Rank r, Rank::Open(host, std::chrono::seconds(2)));
    ASSIGN_OR_RETURN(const auto comm, r.world->Connect({"pair", {0, 1}}));
    ASSIGN_OR_RETURN(const auto control, host.Connect({"control", {0, 1}}));
    const Collective call{.kind = Collective::kAllReduce, .count = kCount, .in = r.in, .out = r.out};
    RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
    RETURN_IF_ERROR(r.device->Drain());
    if (host.rank() == 0) {  // rank 1 does not come
      RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
      r.device->Drain().IgnoreError();
      const absl::Status hung = comm->Poll();
      EXPECT_TRUE(absl::IsDeadlineExceeded(hung)) << hung;
      EXPECT_THAT(std::string(hung.message()), HasSubstr("communicator pair, call 1, all-reduce sum of 1024 f32"));
      EXPECT_EQ(comm->Issue({&call, 1}, r.stream), hung);
    }
    const Collective barrier{.kind = Collective::kBarrier};
    RETURN_IF_ERROR(control->Issue({&barrier, 1}, Stream{}));
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

// Starts and stops: nothing is left behind that the next one stumbles over.
TEST(Nccl, ManyWorldsOneAfterTheOther) {
  STRATA_NEEDS_GPUS(kRanks);
  for (int i = 0; i < 10; ++i) {
    const absl::Status status = RunRanks(kRanks, [](World& host) -> absl::Status {
      ASSIGN_OR_RETURN(Rank r, Rank::Open(host, std::chrono::seconds(30)));
      ASSIGN_OR_RETURN(const auto comm, r.world->Connect({"pair", {0, 1}}));
      const Collective call{.kind = Collective::kAllReduce, .count = kCount, .in = r.in, .out = r.out};
      RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
      RETURN_IF_ERROR(r.device->Drain());
      return comm->Close();
    });
    ASSERT_TRUE(status.ok()) << i << ": " << status;
  }
}

}  // namespace
}  // namespace strata::testing
