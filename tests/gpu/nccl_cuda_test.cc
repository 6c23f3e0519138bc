// NCCL's world on two GPUs: every collective on small whole numbers, whose sums are exact, and what a hang looks like.

#include "parallel/comm/nccl_world.h"

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <thread>

#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/comm/rank_ledger.h"
#include "core/exec/device_memory.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/gpu.h"
#include "tests/testing/gpu_rank.h"

namespace strata::testing {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kRanks = 2;
constexpr int64_t kCount = 1024;  // elements of a buffer, f32

absl::StatusOr<GpuRank> OpenRank(World& host, const NcclWorldOptions& options) {
  return GpuRank::Open(host, kCount, [&](World& h, CudaDevice& device) -> absl::StatusOr<std::unique_ptr<World>> {
    ASSIGN_OR_RETURN(std::unique_ptr<NcclWorld> world, MakeNcclWorld(h, options));
    SetMemory(device, world->memory());
    return world;
  });
}
absl::StatusOr<GpuRank> OpenRank(World& host, std::chrono::milliseconds deadline) {
  return OpenRank(host, NcclWorldOptions{.deadline = deadline});
}

// Why the communicator is of no use any more; OK after 30 s.
absl::Status WaitForAbort(Communicator& comm) {
  for (int i = 0; i < 3000 && comm.Poll().ok(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return comm.Poll();
}

absl::Status CheckCollectives(GpuRank& r, Communicator& comm, int me) {
  for (const Collective::Kind kind : {Collective::kAllReduce, Collective::kReduceScatter, Collective::kAllGather,
                                      Collective::kAllToAll, Collective::kBroadcast}) {
    for (const ReduceOp reduce : {ReduceOp::kSum, ReduceOp::kMax}) {
      const int64_t count = kind == Collective::kAllGather ? kCount / 2 : kCount;
      RETURN_IF_ERROR(r.Write(r.in, RankInput(me, kCount)));
      RETURN_IF_ERROR(r.Write(r.out, std::vector<float>(kCount, -1)));
      const Collective call{.kind = kind, .reduce = reduce, .count = count, .peer = 1, .in = r.in, .out = r.out};
      RETURN_IF_ERROR(comm.Issue({&call, 1}, r.stream));
      const std::vector<float> want = ExpectedOfTwo(call, me);
      ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.out, static_cast<int64_t>(want.size())));
      EXPECT_EQ(got, want) << Name(kind) << " on rank " << me;
    }
  }
  return absl::OkStatus();
}

// A send and a receive of one span start together.
absl::Status CheckSwap(GpuRank& r, Communicator& comm, int me) {
  RETURN_IF_ERROR(r.Write(r.in, RankInput(me, kCount)));
  const Collective swap[] = {{.kind = Collective::kSend, .count = kCount, .peer = 1 - me, .in = r.in},
                             {.kind = Collective::kRecv, .count = kCount, .peer = 1 - me, .out = r.out}};
  RETURN_IF_ERROR(comm.Issue(swap, r.stream));
  const Collective barrier{.kind = Collective::kBarrier};
  RETURN_IF_ERROR(comm.Issue({&barrier, 1}, r.stream));
  ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.out, kCount));
  EXPECT_EQ(got, RankInput(1 - me, kCount));
  return absl::OkStatus();
}

absl::Status CheckShardsInPlace(GpuRank& r, Communicator& comm, int me) {
  const int64_t half = kCount / 2;
  RETURN_IF_ERROR(r.Write(r.in, RankInput(me, kCount)));
  float* const shard = r.in + me * half;
  const Collective scatter{.kind = Collective::kReduceScatter, .count = kCount, .in = r.in, .out = shard};
  RETURN_IF_ERROR(comm.Issue({&scatter, 1}, r.stream));
  const Collective gather{.kind = Collective::kAllGather, .count = half, .in = shard, .out = r.in};
  RETURN_IF_ERROR(comm.Issue({&gather, 1}, r.stream));
  ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.in, kCount));
  EXPECT_EQ(got, ExpectedOfTwo({.kind = Collective::kAllReduce, .count = kCount}, me));
  return absl::OkStatus();
}

// More calls on their way than are remembered one by one.
absl::Status CheckManyCalls(GpuRank& r, Communicator& comm, const CommRecord& record) {
  const uint64_t calls = record.issued() + 500;
  const Collective call{.kind = Collective::kAllReduce, .count = kCount, .in = r.in, .out = r.out};
  for (int i = 0; i < 500; ++i) RETURN_IF_ERROR(comm.Issue({&call, 1}, r.stream));
  RETURN_IF_ERROR(r.device->Drain());
  for (int i = 0; i < 100 && record.ended() < calls; ++i) {
    RETURN_IF_ERROR(comm.Poll());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(record.issued(), calls);
  EXPECT_EQ(record.ended(), calls);
  return absl::OkStatus();
}

// On one communicator: to make it takes longest.
TEST(Nccl, EveryCollective) {
  STRATA_NEEDS_GPUS(kRanks);
  const absl::Status status = RunRanks(kRanks, [](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(GpuRank r, OpenRank(host, std::chrono::seconds(30)));
    const int me = host.rank();
    ASSIGN_OR_RETURN(const auto comm, r.world->Connect({"pair", {0, 1}}));
    RETURN_IF_ERROR(CheckCollectives(r, *comm, me));
    RETURN_IF_ERROR(CheckSwap(r, *comm, me));
    RETURN_IF_ERROR(CheckShardsInPlace(r, *comm, me));
    RETURN_IF_ERROR(CheckManyCalls(r, *comm, *host.ledger()->Find(me, KeyOf(comm->spec()))));
    RETURN_IF_ERROR(r.device->Drain());
    return comm->Close();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Nccl, ACollectiveThatDoesNotEndIsNamed) {
  STRATA_NEEDS_GPUS(kRanks);
  const absl::Status status = RunRanks(kRanks, [](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(GpuRank r, OpenRank(host, std::chrono::seconds(2)));
    ASSIGN_OR_RETURN(const auto comm, r.world->Connect({"pair", {0, 1}}));
    const Collective call{.kind = Collective::kAllReduce, .count = kCount, .in = r.in, .out = r.out};
    RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
    RETURN_IF_ERROR(r.device->Drain());
    if (host.rank() == 1) {  // does not come
      host.ledger()->activity(1).Set("reading data");
      const absl::Status told = WaitForAbort(*comm);
      EXPECT_TRUE(absl::IsUnavailable(told)) << told;
      EXPECT_THAT(std::string(told.message()), StartsWith("rank 0: rank 1 hangs: communicator pair, call 2, "));
      return absl::OkStatus();
    }
    host.ledger()->activity(0).Set("issuing train F0.3");
    host.ledger()->activity(0).Step(12, "blocks.5.mlp");
    RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
    r.device->Drain().IgnoreError();
    const absl::Status hung = comm->Poll();
    EXPECT_TRUE(absl::IsDeadlineExceeded(hung)) << hung;
    EXPECT_THAT(
        std::string(hung.message()),
        ContainsRegex("^rank 1 hangs: communicator pair, call 2, all-reduce sum of 1024 f32 \\(issuing train F0.3 "
                      "step 12 in blocks.5.mlp\\), has not ended for 2000 ms: rank 1 has issued 1 call of pair, and "
                      "has been reading data for [0-9.]+ s$"));
    EXPECT_EQ(comm->Issue({&call, 1}, r.stream), hung);
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

// A rank that issued the call, and whose device does not come to it.
TEST(Nccl, AStreamThatIsBlockedIsNamed) {
  STRATA_NEEDS_GPUS(kRanks);
  std::atomic<bool> release{false};
  const absl::Status status = RunRanks(kRanks, [&](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(GpuRank r, OpenRank(host, std::chrono::seconds(2)));
    ASSIGN_OR_RETURN(const auto comm, r.world->Connect({"pair", {0, 1}}));
    const Collective call{.kind = Collective::kAllReduce, .count = kCount, .in = r.in, .out = r.out};
    RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
    RETURN_IF_ERROR(r.device->Drain());
    if (host.rank() == 1) {
      const auto block = [](void* released) {
        while (!*static_cast<std::atomic<bool>*>(released)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      };
      EXPECT_EQ(cudaLaunchHostFunc(static_cast<cudaStream_t>(r.stream.native), block, &release), cudaSuccess);
    }
    RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
    const absl::Status hung = WaitForAbort(*comm);
    EXPECT_THAT(std::string(hung.message()), HasSubstr("rank 1 hangs: communicator pair, call 2, "));
    EXPECT_THAT(std::string(hung.message()), HasSubstr("; its device has not come to call 2"));
    release = true;
    r.device->Drain().IgnoreError();
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

// Long before the deadline.
TEST(Nccl, AnAbortReachesTheOtherRank) {
  STRATA_NEEDS_GPUS(kRanks);
  const auto begun = std::chrono::steady_clock::now();
  const absl::Status status = RunRanks(kRanks, [](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(GpuRank r, OpenRank(host, std::chrono::seconds(60)));
    ASSIGN_OR_RETURN(const auto comm, r.world->Connect({"pair", {0, 1}}));
    const Collective call{.kind = Collective::kAllReduce, .count = kCount, .in = r.in, .out = r.out};
    RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
    RETURN_IF_ERROR(r.device->Drain());
    if (host.rank() == 1) {
      comm->Abort(absl::UnavailableError("rank 1: bad shard"));
      EXPECT_EQ(comm->Issue({&call, 1}, r.stream), absl::UnavailableError("rank 1: bad shard"));
      return absl::OkStatus();
    }
    absl::Status issued = comm->Issue({&call, 1}, r.stream);
    r.device->Drain().IgnoreError();
    EXPECT_EQ(WaitForAbort(*comm), absl::UnavailableError("rank 1: bad shard")) << issued;
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(30));
}

// Freeing one waits for the device, on which another one waits for ever.
TEST(Nccl, AllCommunicatorsOfARankEndTogether) {
  STRATA_NEEDS_GPUS(kRanks);
  const absl::Status status = RunRanks(kRanks, [](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(GpuRank r, OpenRank(host, std::chrono::seconds(2)));
    std::vector<std::unique_ptr<Communicator>> comms;
    for (const char* name : {"dp", "edge 0->1 activation"}) {
      ASSIGN_OR_RETURN(comms.emplace_back(), r.world->Connect({name, {0, 1}}));
    }
    const Collective call{.kind = Collective::kAllReduce, .count = kCount, .in = r.in, .out = r.out};
    for (auto& comm : comms) RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
    RETURN_IF_ERROR(r.device->Drain());
    if (host.rank() == 0) {
      for (auto& comm : comms) {
        ASSIGN_OR_RETURN(const Stream stream, r.device->NewStream("another", Priority::kNormal));
        RETURN_IF_ERROR(comm->Issue({&call, 1}, stream));
      }
      r.device->Drain().IgnoreError();
    }
    for (auto& comm : comms) {
      const absl::Status why = WaitForAbort(*comm);
      EXPECT_THAT(std::string(why.message()), HasSubstr("rank 1 hangs: communicator "));
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

// What the arena is registered as changes no result.
TEST(Nccl, BuffersOfEveryKindGiveTheSame) {
  STRATA_NEEDS_GPUS(kRanks);
  for (const auto& [buffers, launch] : {std::pair{NcclBuffers::kRegistered, NcclLaunch::kDirect},
                                        {NcclBuffers::kSymmetric, NcclLaunch::kBackground},
                                        {NcclBuffers::kCopyEngine, NcclLaunch::kDirect}}) {
    SCOPED_TRACE(std::string(kNcclBuffersNames[static_cast<int>(buffers)]));
    const absl::Status status = RunRanks(kRanks, [&, how = buffers, by = launch](World& host) -> absl::Status {
      NcclWorldOptions options{.deadline = std::chrono::seconds(30), .collective_ctas = 8, .edge_ctas = 2};
      options.buffers = how;
      options.launch = by;
      ASSIGN_OR_RETURN(GpuRank r, OpenRank(host, options));
      const int me = host.rank();
      ASSIGN_OR_RETURN(const auto comm, r.world->Connect({"pair", {0, 1}}));
      RETURN_IF_ERROR(r.Write(r.in, RankInput(me, kCount)));
      for (const Collective::Kind kind :
           {Collective::kAllReduce, Collective::kReduceScatter, Collective::kAllGather, Collective::kAllToAll}) {
        const int64_t count = kind == Collective::kAllGather ? kCount / 2 : kCount;
        const Collective call{.kind = kind, .count = count, .in = r.in, .out = r.out};
        RETURN_IF_ERROR(comm->Issue({&call, 1}, r.stream));
        const std::vector<float> want = ExpectedOfTwo(call, me);
        ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.out, static_cast<int64_t>(want.size())));
        EXPECT_EQ(got, want) << Name(kind) << " on rank " << me;
      }
      return comm->Close();
    });
    EXPECT_TRUE(status.ok()) << status;
  }
}

// Starts and stops: nothing is left behind that the next one stumbles over.
TEST(Nccl, ManyWorldsOneAfterTheOther) {
  STRATA_NEEDS_GPUS(kRanks);
  const auto number = [](const char* name, int otherwise) {
    const char* const given = std::getenv(name);
    return given == nullptr ? otherwise : std::atoi(given);
  };
  const int first = number("STRATA_FIRST_START", 0), starts = number("STRATA_STARTS", 4);
  for (int i = first; i < first + starts; ++i) {
    const std::array<uint32_t, 4> random = Philox(11, 0, static_cast<uint64_t>(i));
    const int num_comms = 1 + static_cast<int>(random[0] % 3), calls = static_cast<int>(random[1] % 4);
    const bool aborts = random[2] % 3 == 0;
    const absl::Status status = RunRanks(kRanks, [&](World& host) -> absl::Status {
      ASSIGN_OR_RETURN(GpuRank r, OpenRank(host, std::chrono::seconds(30)));
      std::vector<std::unique_ptr<Communicator>> comms;
      for (int c = 0; c < num_comms; ++c) {
        ASSIGN_OR_RETURN(comms.emplace_back(), r.world->Connect({"comm " + std::to_string(c), {0, 1}}));
      }
      const Collective call{.kind = Collective::kAllReduce, .count = kCount, .in = r.in, .out = r.out};
      for (int k = 0; k < calls; ++k) {
        for (auto& comm : comms) {
          const absl::Status issued = comm->Issue({&call, 1}, r.stream);
          // The other rank may be done with its calls, and have stopped.
          if (!issued.ok() && !(aborts && issued == absl::UnavailableError("stop"))) return issued;
        }
      }
      if (aborts && host.rank() == i % kRanks) {  // the other one waits, or closes
        for (auto& comm : comms) comm->Abort(absl::UnavailableError("stop"));
        r.device->Drain().IgnoreError();
        return absl::OkStatus();
      }
      if (aborts) {
        for (auto& comm : comms) comm->Issue({&call, 1}, r.stream).IgnoreError();
        r.device->Drain().IgnoreError();
        for (auto& comm : comms) EXPECT_EQ(WaitForAbort(*comm), absl::UnavailableError("stop"));
        return absl::OkStatus();
      }
      RETURN_IF_ERROR(r.device->Drain());
      for (auto& comm : comms) RETURN_IF_ERROR(comm->Close());
      return absl::OkStatus();
    });
    ASSERT_TRUE(status.ok()) << i << ": " << status;
  }
}

}  // namespace
}  // namespace strata::testing
