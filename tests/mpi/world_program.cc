// One rank of what world_test.cc starts with mpirun: `world_program SCENARIO`. Says what happened on standard output, one
// line a rank, and exits with 0 if that is what the scenario expects of this rank.

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <thread>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/comm/faulty.h"
#include "parallel/comm/mpi_world.h"
#include "tests/mpi/collectives.h"
#include "tests/testing/alloc_counter.h"
#include "tests/testing/small_pipeline.h"

namespace strata {
namespace {

using std::chrono::milliseconds;

constexpr Stream kStream{};
constexpr milliseconds kDeadline{3'000};

absl::Status IssueOne(Communicator& comm, const Collective& c) { return comm.Issue({&c, 1}, kStream); }

CommSpec All(const std::string& name, const World& world) {
  CommSpec spec{name, {}};
  for (int r = 0; r < world.size(); ++r) spec.ranks.push_back(r);
  return spec;
}

// The bits of all collectives, for the test to compare.
absl::Status Collectives(MpiSession& session) {
  return RunMpiRank(session, [](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(const uint64_t bits, testing::BitsOfCollectives(world));
    absl::PrintF("%d got %016x\n", world.rank(), bits);
    return absl::OkStatus();
  });
}

// 1F1B with as many stages as ranks; with `fault`, rank 1's third send or receive goes wrong.
absl::Status Pipeline(MpiSession& session, const std::vector<CommFault>& faults, milliseconds deadline) {
  return RunMpiRank(session,
                    [&](World& plain) -> absl::Status {
                      const testing::SmallPipeline pipeline = testing::OneForwardOneBackward(plain.size(), 5);
                      ASSIGN_OR_RETURN(const std::vector<Plan> plans, testing::PlanPipeline(pipeline));
                      FaultyWorld world(plain, plain.rank() == 1 ? faults : std::vector<CommFault>{}, 1);
                      ASSIGN_OR_RETURN(const testing::PipelineRun run,
                                       testing::RunPipelineRank(plans[world.rank()], pipeline, world));
                      absl::PrintF("%d got %s\n", world.rank(), testing::Bits(run));
                      return absl::OkStatus();
                    },
                    {deadline});
}
absl::Status WholePipeline(MpiSession& session) { return Pipeline(session, {}, milliseconds(20'000)); }
absl::Status HungPipeline(MpiSession& session) {
  return Pipeline(session, {{CommFault::kHang, "edge 1->2 activation", 2, {}}}, kDeadline);
}
absl::Status FailedPipeline(MpiSession& session) {
  return Pipeline(session, {{CommFault::kError, "edge 1->2 activation", 2, {}}}, milliseconds(20'000));
}

absl::Status AllocatesNothing(MpiSession& session) {
  return RunMpiRank(session, [](World& world) -> absl::Status {
    const int n = world.size(), next = (world.rank() + 1) % n, last = (world.rank() + n - 1) % n;
    ASSIGN_OR_RETURN(auto comm, world.Connect(All("all", world)));
    const int64_t count = 300 * n;
    std::vector<float> x(count, 1.0f), y(count * n);
    const Collective calls[] = {{Collective::kSend, {}, DType::kF32, count, next, x.data(), nullptr},
                                {Collective::kRecv, {}, DType::kF32, count, last, nullptr, y.data()},
                                {Collective::kAllReduce, {}, DType::kF32, count, -1, x.data(), x.data()},
                                {Collective::kReduceScatter, {}, DType::kF32, count, -1, x.data(), y.data()},
                                {Collective::kAllGather, {}, DType::kF32, count, -1, x.data(), y.data()},
                                {Collective::kAllToAll, {}, DType::kF32, count, -1, x.data(), y.data()},
                                {Collective::kBroadcast, {}, DType::kF32, count, 1, x.data(), x.data()},
                                {}};
    RETURN_IF_ERROR(comm->Issue(calls, kStream));
    int64_t allocations = 0;
    {
      const testing::AllocCounter counter;
      for (int i = 0; i < 20; ++i) RETURN_IF_ERROR(comm->Issue(calls, kStream));
      allocations = counter.count();
    }
    return allocations == 0 ? absl::OkStatus() : absl::InternalError(absl::StrFormat("%d allocations", allocations));
  });
}

// Rank 2 does `last` while the others wait for it in `kind`, on crossing groups: dp {0,2} {1,3}, tp {0,1} {2,3}.
absl::Status WhileOthersWait(MpiSession& session, milliseconds deadline,
                             const std::function<absl::Status(Communicator&)>& last) {
  return RunMpiRank(session,
                    [&](World& world) -> absl::Status {
                      const int r = world.rank();
                      ASSIGN_OR_RETURN(auto dp, world.Connect({"dp", {r % 2, r % 2 + 2}}));
                      ASSIGN_OR_RETURN(auto tp, world.Connect({"tp", {r / 2 * 2, r / 2 * 2 + 1}}));
                      std::vector<float> x(8, 1.0f);
                      const Collective call{Collective::kAllReduce, {}, DType::kF32, 8, -1, x.data(), x.data()};
                      RETURN_IF_ERROR(IssueOne(*dp, call));
                      if (r == 2) return last(*dp);
                      if (r == 1) RETURN_IF_ERROR(IssueOne(*tp, call));  // waits for 0, which waits for 2
                      RETURN_IF_ERROR(IssueOne(r == 3 ? *tp : *dp, call));
                      return IssueOne(*tp, call);
                    },
                    {deadline});
}

absl::Status Hang(MpiSession& session) {
  return WhileOthersWait(session, kDeadline, [](Communicator&) {
    std::this_thread::sleep_for(6 * kDeadline);  // computes, answers nobody
    return absl::OkStatus();
  });
}

absl::Status Error(MpiSession& session) {
  return WhileOthersWait(session, milliseconds(20'000), [](Communicator&) { return absl::DataLossError("bad shard"); });
}

absl::Status Abort(MpiSession& session) {
  return WhileOthersWait(session, milliseconds(20'000), [](Communicator& comm) {
    comm.Abort(absl::UnavailableError("first"));
    comm.Abort(absl::UnavailableError("second"));
    return IssueOne(comm, {});
  });
}

absl::Status Mismatch(MpiSession& session) {
  return RunMpiRank(session, [](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(auto comm, world.Connect(All("dp", world)));
    float x[8] = {};
    return IssueOne(*comm, {Collective::kAllReduce, {}, DType::kF32, world.rank() == 1 ? 3 : 4, -1, x, x});
  });
}

absl::Status MismatchedPair(MpiSession& session) {
  return RunMpiRank(session, [](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(auto comm, world.Connect(All("edge", world)));
    float x[8] = {};
    if (world.rank() == 0) return IssueOne(*comm, {Collective::kSend, {}, DType::kF32, 5, 1, x, nullptr});
    return IssueOne(*comm, {Collective::kRecv, {}, DType::kF32, 4, 0, nullptr, x});
  });
}

absl::Status Connect(MpiSession& session) {
  return RunMpiRank(session, [](World& world) -> absl::Status {
    return world.Connect(world.rank() == 0 ? CommSpec{"dp", {0, 1}} : CommSpec{"tp", {0, 1}}).status();
  });
}

// Runs that start and stop, one after the other: some communicators, some calls, closed or just left.
absl::Status Starts(MpiSession& session) {
  for (int i = 0; i < 7; ++i) {
    RETURN_IF_ERROR(RunMpiRank(session, [&](World& world) -> absl::Status {
      std::vector<std::unique_ptr<Communicator>> comms;
      for (int c = 0; c <= i % 3; ++c) {
        ASSIGN_OR_RETURN(comms.emplace_back(), world.Connect(All(absl::StrFormat("comm %d", c), world)));
      }
      float x = 1;
      const Collective sum{Collective::kAllReduce, {}, DType::kF32, 1, -1, &x, &x};
      for (int k = 0; k < i; ++k) {
        for (auto& comm : comms) RETURN_IF_ERROR(IssueOne(*comm, sum));
      }
      for (auto& comm : comms) {
        if (i % 2 == 0) RETURN_IF_ERROR(comm->Close());
      }
      return absl::OkStatus();
    }));
  }
  return absl::OkStatus();
}

int Run(const char* scenario) {
  struct Scenario {
    const char* name;
    absl::Status (*run)(MpiSession&);
  };
  constexpr Scenario kScenarios[] = {{"collectives", Collectives},
                                     {"no-allocation", AllocatesNothing},
                                     {"pipeline", WholePipeline},
                                     {"hung-pipeline", HungPipeline},
                                     {"failed-pipeline", FailedPipeline},
                                     {"hang", Hang},
                                     {"error", Error},
                                     {"starts", Starts},
                                     {"abort", Abort},
                                     {"mismatch", Mismatch},
                                     {"pair", MismatchedPair},
                                     {"connect", Connect}};
  auto session = MpiSession::Start();
  if (!session.ok()) return 2;
  for (const Scenario& s : kScenarios) {
    if (std::strcmp(s.name, scenario) != 0) continue;
    const absl::Status status = s.run(**session);
    absl::PrintF("%d says %s\n", (*session)->rank(), status.ToString());
    std::fflush(stdout);
    if (status.ok() && !(*session)->Finish().ok()) return 2;
    if (!status.ok()) std::this_thread::sleep_for(milliseconds(300));  // mpirun ends the others when one is gone
    return status.ok() ? 0 : 1;
  }
  return 64;
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) { return argc == 2 ? strata::Run(argv[1]) : 64; }
