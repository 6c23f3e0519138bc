// Collectives between GPUs that reach each other's memory: every kind on small whole numbers, whose sums are exact; odd sizes,
// several at once, in place; and calls that do not come or differ.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "core/base/status.h"
#include "core/comm/rank_ledger.h"
#include "parallel/comm/peer_world.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kRanks = 2;

struct Rank {
  std::unique_ptr<CudaDevice> device;
  std::unique_ptr<World> world;
  std::unique_ptr<Communicator> comm;
  Stream stream;
  float *in = nullptr, *out = nullptr;

  static absl::StatusOr<Rank> Open(World& host, int64_t count,
                                   std::chrono::milliseconds deadline = std::chrono::seconds(30)) {
    Rank r;
    ASSIGN_OR_RETURN(r.device, CudaDevice::Open(host.rank()));
    ASSIGN_OR_RETURN(r.world, MakePeerWorld(host, {.deadline = deadline}));
    ASSIGN_OR_RETURN(r.comm, r.world->Connect({"pair", {0, 1}}));
    ASSIGN_OR_RETURN(r.stream, r.device->NewStream("test", Priority::kNormal));
    for (float** buffer : {&r.in, &r.out}) {
      ASSIGN_OR_RETURN(std::byte* const bytes, r.device->Reserve(Tier::kDevice, count * 4));
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
    RETURN_IF_ERROR(device->Drain());
    RETURN_IF_ERROR(device->Copy(values.data(), from, count * 4, stream));
    RETURN_IF_ERROR(device->Drain());
    return values;
  }
};

float At(int rank, int64_t i) { return static_cast<float>((i * 7 + rank * 13) % 101); }
std::vector<float> Input(int rank, int64_t count) {
  std::vector<float> v(count);
  for (int64_t i = 0; i < count; ++i) v[i] = At(rank, i);
  return v;
}

// What a call of `count` elements gives rank `me`.
std::vector<float> Expected(const Collective& c, int me) {
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
    default: v = Input(c.peer, c.count);
  }
  return v;
}

TEST(Peers, EveryCollectiveOfEverySize) {
  STRATA_NEEDS_GPUS(kRanks);
  constexpr int64_t kMost = 3 << 20;
  const absl::Status status = RunRanks(kRanks, [&](World& host) -> absl::Status {
    ASSIGN_OR_RETURN(Rank r, Rank::Open(host, 2 * kMost));
    const int me = host.rank();
    for (const int64_t count : {int64_t{1}, int64_t{2}, int64_t{6}, int64_t{1022}, int64_t{100002}, kMost}) {
      RETURN_IF_ERROR(r.Write(r.in, Input(me, count)));
      for (const Collective::Kind kind : {Collective::kAllReduce, Collective::kReduceScatter, Collective::kAllGather,
                                          Collective::kAllToAll, Collective::kBroadcast}) {
        if (count % 2 != 0 && (kind == Collective::kReduceScatter || kind == Collective::kAllToAll)) continue;
        for (const ReduceOp reduce : {ReduceOp::kSum, ReduceOp::kMax}) {
          RETURN_IF_ERROR(r.Write(r.out, std::vector<float>(2 * count, -1)));
          const Collective call{.kind = kind, .reduce = reduce, .count = count, .peer = 1, .in = r.in, .out = r.out};
          RETURN_IF_ERROR(r.comm->Issue({&call, 1}, r.stream));
          const std::vector<float> want = Expected(call, me);
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
    RETURN_IF_ERROR(r.Write(r.in, Input(me, kCount)));
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
    EXPECT_TRUE(got == Expected({.kind = Collective::kAllReduce, .count = kCount}, me));
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
    RETURN_IF_ERROR(r.Write(r.in, Input(me, kCount)));
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
        EXPECT_TRUE(got == Input(0, kCount)) << m;
      }
    }
    const Collective swap[] = {{.kind = Collective::kSend, .count = kCount, .peer = 1 - me, .in = r.in},
                               {.kind = Collective::kRecv, .count = kCount, .peer = 1 - me, .out = r.out}};
    RETURN_IF_ERROR(r.Write(r.in, Input(me, kCount)));
    RETURN_IF_ERROR(r.comm->Issue(swap, r.stream));
    ASSIGN_OR_RETURN(const std::vector<float> got, r.Read(r.out, kCount));
    EXPECT_TRUE(got == Input(1 - me, kCount));
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
