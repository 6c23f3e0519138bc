// The executor on a whole training job over thread ranks: no allocation, poison, errors.

#include "core/exec/executor.h"

#include <gtest/gtest.h>

#include <barrier>
#include <chrono>
#include <thread>

#include "core/base/thread_pool.h"
#include "core/exec/cpu_device.h"
#include "launch/job/job_memory.h"
#include "launch/job/rank_runner.h"
#include "parallel/comm/faulty.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/alloc_counter.h"
#include "tests/testing/small_job.h"

namespace strata {
namespace {

using testing::SmallJob;
using testing::TableRows;

struct Compiled {
  KernelTable kernels = CpuKernels();
  Job job;
  std::vector<Plan> plans;
};

std::unique_ptr<Compiled> Compile(const JobConfig& config) {
  auto c = std::make_unique<Compiled>();
  absl::StatusOr<Job> job = CompileTraining(config, c->kernels);
  EXPECT_TRUE(job.ok()) << job.status();
  c->job = *std::move(job);
  absl::StatusOr<std::vector<Plan>> plans = PlanRanks(c->job, c->kernels);
  EXPECT_TRUE(plans.ok()) << plans.status();
  c->plans = *std::move(plans);
  return c;
}

class ExecutorIn : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, ExecutorIn, ::testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return std::string(Name(info.param)); });

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int64_t kMayGrow = 64 << 20;  // a sanitizer's own memory
#else
constexpr int64_t kMayGrow = 1 << 20;
#endif

void ExpectNoAllocationAfterTheFirstStep(const JobConfig& config) {
  const auto c = Compile(config);
  const TableRows rows(config.model.vocab, 3);
  std::barrier sync(4);
  std::unique_ptr<testing::AllocCounter> counter;
  int64_t allocations = -1, grown = -1, before = 0;
  const absl::Status status = RunRanks(4, [&](World& world) -> absl::Status {
    CpuDevice device;
    ThreadPool pool(2);
    auto runner =
        RankRunner::Create(c->job, std::make_shared<const Plan>(c->plans[world.rank()]), world, device, &pool);
    if (!runner.ok()) return runner.status();
    if (absl::Status s = (*runner)->InitParameters(1); !s.ok()) return s;
    absl::Status error;
    for (int step = 1; step <= 102; ++step) {
      if (step == 3) {
        sync.arrive_and_wait();
        if (world.rank() == 0) {
          before = ResidentBytes();
          counter = std::make_unique<testing::AllocCounter>();
        }
        sync.arrive_and_wait();
      }
      error.Update((*runner)->TrainStep(step, (step - 1) * 8, rows).status());
    }
    sync.arrive_and_wait();
    if (world.rank() == 0) {
      allocations = counter->count();
      counter.reset();
      grown = ResidentBytes() - before;
    }
    sync.arrive_and_wait();
    return error;
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(allocations, 0);
  EXPECT_LE(grown, kMayGrow);
}

TEST_P(ExecutorIn, AllocatesNothingAfterTheFirstStepAndMemoryStaysFlat) {
  JobConfig config = SmallJob(2, 2, 2);
  config.precision.compute = GetParam();
  for (const Overlap overlap : {Overlap::kOff, Overlap::kOn}) {
    config.parallel.overlap = overlap;
    ExpectNoAllocationAfterTheFirstStep(config);
  }
}

// What preparations of kernels that accumulate were told.
std::vector<bool>& Overwrites() {
  static std::vector<bool> overwrites;
  return overwrites;
}

TEST(Executor, PreparesWhatAccumulatesForWhatItWillDo) {
  static const Kernel kAsked = {.prepare = [](const KernelArgs& a) {
    Overwrites().push_back(a.overwrite);
    return absl::OkStatus();
  }};
  for (const int64_t accumulate : {1, 3}) {
    const auto c = Compile(SmallJob(1, 1, accumulate));
    Plan plan = c->plans[0];
    for (Segment& segment : plan.programs[0].segments) {
      for (Step& step : segment.steps) {
        if (step.kind == Step::kLaunch && step.op->name() == "accumulate") step.kernel = &kAsked;
      }
    }
    Overwrites().clear();
    const absl::Status status = RunRanks(1, [&](World& world) -> absl::Status {
      CpuDevice device;
      return RankRunner::Create(c->job, std::make_shared<const Plan>(plan), world, device, nullptr).status();
    });
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_FALSE(Overwrites().empty());
    EXPECT_EQ(Overwrites(), std::vector<bool>(Overwrites().size(), accumulate == 1));
  }
}

TEST(Executor, TellsOfASlowStartOnce) {
  static const Kernel kSlow = {.prepare = [](const KernelArgs&) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return absl::OkStatus();
  }};
  const auto c = Compile(SmallJob(1, 1, 1));
  Plan plan = c->plans[0];
  for (Segment& segment : plan.programs[0].segments) {
    for (Step& step : segment.steps) {
      if (step.kind == Step::kLaunch) step.kernel = &kSlow;
    }
  }
  for (const auto& [patience, expected] : {std::pair{std::chrono::milliseconds(1), 1}, {std::chrono::hours(1), 0}}) {
    int told = 0;
    const absl::Status status = RunRanks(1, [&, patience = patience](World& world) {
      CpuDevice device;
      const auto count = [&told] { ++told; };
      return Executor::Create(std::make_shared<const Plan>(plan),
                              {.device = device, .world = world, .on_slow_start = count, .patience = patience})
          .status();
    });
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(told, expected);
  }
}

class FillCounter final : public CpuDevice {
 public:
  absl::Status Fill(void* dst, uint8_t byte, int64_t bytes, Stream s) override {
    filled += bytes;
    return CpuDevice::Fill(dst, byte, bytes, s);
  }
  int64_t filled = 0;
};

struct Trained {
  std::vector<std::byte> parameters;
  int64_t filled = 0;        // bytes poisoned
  int64_t not_a_number = 0;  // steps of three whose loss or gradient was
};

Trained Train(const Compiled& c, Executor::Freed freed) {
  Trained result;
  const TableRows rows(c.job.config.model.vocab, 3);
  const absl::Status status = RunRanks(1, [&](World& world) -> absl::Status {
    FillCounter device;
    auto runner = RankRunner::Create(c.job, std::make_shared<const Plan>(c.plans[0]), world, device, nullptr, freed);
    if (!runner.ok()) return runner.status();
    if (absl::Status s = (*runner)->InitParameters(1); !s.ok()) return s;
    for (int step = 1; step <= 3; ++step) {
      const absl::StatusOr<StepReport> r = (*runner)->TrainStep(step, (step - 1) * 8, rows);
      if (!r.ok()) return r.status();
      result.not_a_number += r->skipped;
    }
    for (const PlannedState& s : (*runner)->executor().plan().states) {
      const std::span<std::byte> bytes = (*runner)->executor().StateBytes(s);
      if (s.role == Role::kParam) result.parameters.insert(result.parameters.end(), bytes.begin(), bytes.end());
    }
    result.filled = device.filled;
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  return result;
}

TEST(Executor, PoisoningFreedRangesChangesNoResult) {
  const auto c = Compile(SmallJob(1, 1, 2));
  const Trained kept = Train(*c, Executor::Freed::kKeep), poisoned = Train(*c, Executor::Freed::kPoison);
  EXPECT_EQ(kept.filled, 0);
  EXPECT_GT(poisoned.filled, 10000);
  EXPECT_EQ(kept.parameters, poisoned.parameters);
  EXPECT_EQ(poisoned.not_a_number, 0);
}

// In groups of rows, what dies between a gather and its product dies before the product's first group is made.
TEST(Executor, PoisonChangesNothingWhereProductsAreSplitByRows) {
  JobConfig config = SmallJob(1, 2, 1);
  config.parallel.sequence_parallel = true;
  config.parallel.overlap = Overlap::kOn;
  const auto c = Compile(config);
  const TableRows rows(config.model.vocab, 3);
  std::vector<double> losses[2];
  for (const Executor::Freed freed : {Executor::Freed::kKeep, Executor::Freed::kPoison}) {
    std::vector<double>& mine = losses[freed == Executor::Freed::kPoison ? 1 : 0];
    const absl::Status status = RunRanks(2, [&](World& world) -> absl::Status {
      CpuDevice device;
      auto runner = RankRunner::Create(c->job, std::make_shared<const Plan>(c->plans[world.rank()]), world, device,
                                       nullptr, freed);
      if (!runner.ok()) return runner.status();
      if (absl::Status s = (*runner)->InitParameters(1); !s.ok()) return s;
      for (int step = 1; step <= 3; ++step) {
        const absl::StatusOr<StepReport> r = (*runner)->TrainStep(step, (step - 1) * 8, rows);
        if (!r.ok()) return r.status();
        if (world.rank() == 0) mine.push_back(r->loss);
      }
      const absl::StatusOr<RankRunner::LossSum> sum = (*runner)->Evaluate(5, rows);
      if (!sum.ok()) return sum.status();
      if (world.rank() == 0) mine.push_back(sum->nats);
      return absl::OkStatus();
    });
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(losses[0].size(), 4u);
  EXPECT_EQ(losses[0], losses[1]);
}

TEST(Executor, PoisonExposesAReadAfterFree) {
  auto c = Compile(SmallJob(1, 1, 2));
  Segment& forward = c->plans[0].programs[0].segments[0];
  const Operand& out = forward.steps[0].out[0];
  forward.frees.insert(forward.frees.begin(), {0, out.ref, out.view.bytes()});
  EXPECT_EQ(Train(*c, Executor::Freed::kPoison).not_a_number, 3);
}

void ExpectACauseOnBothRanks(const JobConfig& config) {
  const auto c = Compile(config);
  const TableRows rows(c->job.config.model.vocab, 3);
  std::vector<absl::Status> ends(2);
  RunRanks(2, [&](World& plain) -> absl::Status {
    std::vector<CommFault> faults;
    if (plain.rank() == 1) faults = {{.kind = CommFault::kError, .comm = "dp", .call = 3}};
    FaultyWorld world(plain, faults, 1);
    CpuDevice device;
    auto runner =
        RankRunner::Create(c->job, std::make_shared<const Plan>(c->plans[plain.rank()]), world, device, nullptr);
    if (!runner.ok()) return runner.status();
    for (int step = 1; step <= 5 && ends[plain.rank()].ok(); ++step) {
      ends[plain.rank()] = (*runner)->TrainStep(step, 0, rows).status();
    }
    // The error is sticky.
    EXPECT_EQ((*runner)->executor().Run("train", {}, {}).ok(), false);
    return absl::OkStatus();
  }).IgnoreError();
  EXPECT_FALSE(ends[0].ok());
  EXPECT_FALSE(ends[1].ok());
  EXPECT_NE(ends[0].message().find("rank 1"), std::string::npos) << ends[0];
  // The failing rank says where: action, step and how many collectives it had issued.
  EXPECT_NE(ends[1].message().find("train "), std::string::npos) << ends[1];
  EXPECT_NE(ends[1].message().find("collectives"), std::string::npos) << ends[1];
}

TEST(Executor, AFailingRankEndsThePeersWithItsCause) {
  JobConfig config = SmallJob(2, 1, 1);
  ExpectACauseOnBothRanks(config);
  config.parallel.overlap = Overlap::kOn;
  ExpectACauseOnBothRanks(config);
}

}  // namespace
}  // namespace strata
