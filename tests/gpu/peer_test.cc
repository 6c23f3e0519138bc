// Collectives between GPUs that reach each other's memory: every kind on small whole numbers, whose sums are exact; odd sizes,
// several at once, in place; and calls that do not come or differ.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "core/base/status.h"
#include "core/comm/rank_ledger.h"
#include "parallel/comm/peer_world.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/gpu.h"
#include "tests/testing/gpu_rank.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kRanks = 2;

struct Rank : GpuRank {
  std::unique_ptr<Communicator> comm;

  static absl::StatusOr<Rank> Open(World& host, int64_t count,
                                   std::chrono::milliseconds deadline = std::chrono::seconds(30)) {
    ASSIGN_OR_RETURN(GpuRank rank, GpuRank::Open(host, count, [&](World& h, CudaDevice&) {
                       return MakePeerWorld(h, {.deadline = deadline});
                     }));
    Rank r{std::move(rank), nullptr};
    ASSIGN_OR_RETURN(r.comm, r.world->Connect({"pair", {0, 1}}));
    return r;
  }
};

TEST(Peers, EveryCollectiveOfEverySize) {
  STRATA_NEEDS_GPUS(kRanks);
  constexpr int64_t kMost = 3 << 20;
  const absl::Status status = RunRanks(kRanks, [&](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(Rank r, Rank::Open(host, 2 * kMost));
    const int me = host.rank();
    for (const int64_t count : {int64_t{1}, int64_t{2}, int64_t{6}, int64_t{1022}, int64_t{100002}, kMost}) {
      RETURN_IF_ERROR(r.Write(r.in, RankInput(me, count)));
      for (const Collective::Kind kind : {Collective::kAllReduce, Collective::kReduceScatter, Collective::kAllGather,
                                          Collective::kAllToAll, Collective::kBroadcast}) {
        if (count % 2 != 0 && (kind == Collective::kReduceScatter || kind == Collective::kAllToAll)) continue;
        for (const ReduceOp reduce : {ReduceOp::kSum, ReduceOp::kMax}) {
          RETURN_IF_ERROR(r.Write(r.out, std::vector<float>(2 * count, -1)));
          const Collective call{.kind = kind, .reduce = reduce, .count = count, .peer = 1, .in = r.in, .out = r.out};
          RETURN_IF_ERROR(r.comm->Issue({&call, 1}, r.stream));
          const std::vector<float> want = ExpectedOfTwo(call, me);
          ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.out, static_cast<int64_t>(want.size())));
          EXPECT_TRUE(got == want) << Name(kind) << " of " << count << " on rank " << me;
        }
      }
    }
    return r.comm->Close();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Peers, ShardsInPlaceAndSeveralAtOnce) {
  STRATA_NEEDS_GPUS(kRanks);
  constexpr int64_t kCount = 4096, kHalf = kCount / 2, kQuarter = kCount / 4;
  const absl::Status status = RunRanks(kRanks, [&](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(Rank r, Rank::Open(host, kCount));
    const int me = host.rank();
    RETURN_IF_ERROR(r.Write(r.in, RankInput(me, kCount)));
    const auto scatter = [&](int64_t from, int64_t count) {
      return Collective{
          .kind = Collective::kReduceScatter, .count = count, .in = r.in + from, .out = r.in + from + me * count / 2};
    };
    const auto gather = [&](int64_t to, int64_t count) {
      return Collective{.kind = Collective::kAllGather, .count = count, .in = r.in + to + me * count, .out = r.in + to};
    };
    const Collective scatters[] = {scatter(0, kHalf), scatter(kHalf, kHalf)};
    RETURN_IF_ERROR(r.comm->Issue(scatters, r.stream));
    const Collective gathers[] = {gather(0, kQuarter), gather(kHalf, kQuarter)};
    RETURN_IF_ERROR(r.comm->Issue(gathers, r.stream));
    ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.in, kCount));
    EXPECT_TRUE(got == ExpectedOfTwo({.kind = Collective::kAllReduce, .count = kCount}, me));
    return r.comm->Close();
  });
  EXPECT_TRUE(status.ok()) << status;
}

// A receive that is issued first costs the device nothing but its turn; many follow each other through one buffer.
TEST(Peers, MessagesWaitForTheirSenderAndTheirBuffer) {
  STRATA_NEEDS_GPUS(kRanks);
  constexpr int64_t kCount = 1 << 20;
  const absl::Status status = RunRanks(kRanks, [&](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(Rank r, Rank::Open(host, 20 * kCount));
    const int me = host.rank();
    RETURN_IF_ERROR(r.Write(r.in, RankInput(me, kCount)));
    for (int m = 0; m < 20; ++m) {
      if (me == 0) {  // sends its buffer and doubles it
        const Collective send{.kind = Collective::kSend, .count = kCount, .peer = 1, .in = r.in};
        RETURN_IF_ERROR(r.comm->Issue({&send, 1}, r.stream));
        const Collective twice{.kind = Collective::kBarrier};
        RETURN_IF_ERROR(r.comm->Issue({&twice, 1}, r.stream));
      } else {
        const Collective receive{.kind = Collective::kRecv, .count = kCount, .peer = 0, .out = r.in};
        RETURN_IF_ERROR(r.comm->Issue({&receive, 1}, r.stream));
        RETURN_IF_ERROR(r.device->Copy(r.out + m * kCount, r.in, kCount * 4, r.stream));
        const Collective barrier{.kind = Collective::kBarrier};
        RETURN_IF_ERROR(r.comm->Issue({&barrier, 1}, r.stream));
      }
    }
    if (me == 1) {
      for (int m = 0; m < 20; ++m) {
        ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.out + m * kCount, kCount));
        EXPECT_TRUE(got == RankInput(0, kCount)) << m;
      }
    }
    const Collective swap[] = {{.kind = Collective::kSend, .count = kCount, .peer = 1 - me, .in = r.in},
                               {.kind = Collective::kRecv, .count = kCount, .peer = 1 - me, .out = r.out}};
    RETURN_IF_ERROR(r.Write(r.in, RankInput(me, kCount)));
    RETURN_IF_ERROR(r.comm->Issue(swap, r.stream));
    ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.out, kCount));
    EXPECT_TRUE(got == RankInput(1 - me, kCount));
    RETURN_IF_ERROR(r.device->Drain());
    return r.comm->Close();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Peers, CallsThatDifferAreAnErrorOnBothRanks) {
  STRATA_NEEDS_GPUS(kRanks);
  const absl::Status status = RunRanks(kRanks, [](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(Rank r, Rank::Open(host, 1024));
    const Collective call{.kind = Collective::kAllReduce, .count = 100 + host.rank(), .in = r.in, .out = r.out};
    const absl::Status differ = r.comm->Issue({&call, 1}, r.stream);
    EXPECT_THAT(std::string(differ.message()), HasSubstr("differs: rank 0 issues all-reduce sum of 100 f32"));
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Peers, ARankThatDoesNotComeIsNamed) {
  STRATA_NEEDS_GPUS(kRanks);
  const absl::Status status =
      RunRanks(kRanks,
               [](World& host) -> absl::Status {
                 ASSIGN_OR_RETURN(Rank r, Rank::Open(host, 1024, std::chrono::seconds(1)));
                 if (host.rank() == 1) {
                   host.ledger()->activity(1).Set("reading data");
                   while (r.comm->Poll().ok()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
                   return absl::OkStatus();
                 }
                 const Collective call{.kind = Collective::kAllReduce, .count = 1024, .in = r.in, .out = r.out};
                 const absl::Status hung = r.comm->Issue({&call, 1}, r.stream);
                 EXPECT_TRUE(absl::IsDeadlineExceeded(hung)) << hung;
                 EXPECT_THAT(std::string(hung.message()), HasSubstr("rank 1"));
                 EXPECT_THAT(std::string(hung.message()), HasSubstr("reading data"));
                 RETURN_IF_ERROR(r.device->Drain());
                 return absl::OkStatus();
               },
               {.deadline = std::chrono::seconds(30)});
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace strata::testing
