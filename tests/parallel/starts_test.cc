// Jobs that start and stop, many times: whole ones, and ones that a rank ends in the middle. None hangs, all say why.

#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "parallel/comm/thread_world.h"

namespace strata {
namespace {

constexpr int kStarts = 200;

struct Plan {
  int ranks, comms, calls;
  int fails;   // the rank that ends with an error, or -1
  int aborts;  // the rank that aborts its communicators, or -1
  int where;   // before this call
};

Plan Draw(int i) {
  const std::array<uint32_t, 4> a = Philox(3, 0, static_cast<uint64_t>(i)), b = Philox(3, 1, static_cast<uint64_t>(i));
  Plan p{};
  p.ranks = 2 + static_cast<int>(a[0] % 3);
  p.comms = 1 + static_cast<int>(a[1] % 4);
  p.calls = 1 + static_cast<int>(a[2] % 5);
  const int end = static_cast<int>(a[3] % 4), who = static_cast<int>(b[0] % static_cast<uint32_t>(p.ranks));
  p.fails = end == 1 ? who : -1;
  p.aborts = end == 2 ? who : -1;
  p.where = static_cast<int>(b[1] % static_cast<uint32_t>(p.calls));
  return p;
}

absl::Status Rank(World& world, const Plan& p) {
  std::vector<std::unique_ptr<Communicator>> comms;
  std::vector<int> all(world.size());
  std::iota(all.begin(), all.end(), 0);
  for (int c = 0; c < p.comms; ++c) {
    ASSIGN_OR_RETURN(comms.emplace_back(), world.Connect({absl::StrCat("comm ", c), all}));
  }
  float x = 1;
  const Collective sum{.kind = Collective::kAllReduce, .count = 1, .in = &x, .out = &x};
  for (int call = 0; call < p.calls; ++call) {
    if (call == p.where && world.rank() == p.fails) return absl::DataLossError("bad shard");
    if (call == p.where && world.rank() == p.aborts) {
      for (auto& comm : comms) comm->Abort(absl::UnavailableError("stop"));
    }
    for (auto& comm : comms) RETURN_IF_ERROR(comm->Issue({&sum, 1}, Stream{}));
  }
  for (auto& comm : comms) RETURN_IF_ERROR(comm->Close());
  return absl::OkStatus();
}

TEST(Starts, TwoHundredJobsOfThreads) {
  int whole = 0, failed = 0, aborted = 0;
  for (int i = 0; i < kStarts; ++i) {
    const Plan p = Draw(i);
    const absl::Status status = RunRanks(p.ranks, [&](World& w) { return Rank(w, p); }, {std::chrono::seconds(20)});
    const std::string message(status.message());
    if (p.fails >= 0) {
      EXPECT_EQ(status, absl::DataLossError(absl::StrCat("rank ", p.fails, ": bad shard"))) << i;
      ++failed;
    } else if (p.aborts >= 0) {
      EXPECT_TRUE(absl::IsUnavailable(status) && message.ends_with("stop")) << i << ": " << status;
      ++aborted;
    } else {
      EXPECT_TRUE(status.ok()) << i << ": " << status;
      ++whole;
    }
  }
  EXPECT_GT(whole, 50);
  EXPECT_GT(failed, 20);
  EXPECT_GT(aborted, 20);
}

}  // namespace
}  // namespace strata
