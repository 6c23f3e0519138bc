// What ZeRO holds and sends: the formulas, exactly. Bytes of a bf16 job with AdamW: weights 2, float32 gradients 4, master
// weights 4, moments 8 a parameter.

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "tests/testing/small_job.h"

namespace strata {
namespace {

using testing::JobRun;
using testing::RunJob;
using testing::SmallJob;
using testing::TableRows;

JobConfig Bf16Job(int64_t dp, int64_t accumulate, const ZeroConfig& zero) {
  JobConfig c = SmallJob(dp, 1, accumulate);
  c.precision.compute = DType::kBF16;
  c.parallel.zero = zero;
  return c;
}

bool IsFlat(const State& s, std::string_view what) {
  return s.storage < 0 && s.name.compare(0, 7, "bucket.") == 0 && s.name.ends_with(what);
}

// Of all buckets of this name, with their padding.
double ElementsOf(const Job& job, std::string_view bucket = ".params") {
  double n = 0;
  for (const State& s : job.programs[0][0].graph.states)
    n += IsFlat(s, bucket) ? static_cast<double>(s.spec.shape[0]) : 0;
  return n;
}

absl::StatusOr<std::vector<Plan>> PlansOf(const JobConfig& config, double* elements = nullptr) {
  const KernelTable kernels = CpuKernels();
  const absl::StatusOr<Job> job = CompileTraining(config, kernels);
  if (!job.ok()) return job.status();
  if (elements != nullptr) *elements = ElementsOf(*job);
  return PlanRanks(*job, kernels);
}

double RegionBytes(const Plan& plan, std::string_view name) {
  double bytes = 0;
  for (const Region& r : plan.regions) bytes += r.name == name ? static_cast<double>(r.bytes) : 0;
  return bytes;
}

TEST(ZeroMemory, StatesFollowTheFormulas) {
  for (const double d : {2.0, 4.0, 8.0}) {
    struct Row {
      double weights, gradients, master, moments;
    };
    const Row rows[] = {{2, 4, 4, 8}, {2, 4, 4 / d, 8 / d}, {2, 4 / d, 4 / d, 8 / d}, {2 / d, 4 / d, 4 / d, 8 / d}};
    const double sums[] = {18, 6 + 12 / d, 2 + 16 / d, 18 / d};
    for (int64_t stage = 0; stage <= 3; ++stage) {
      double n = 0;
      const auto plans = PlansOf(Bf16Job(static_cast<int64_t>(d), 1, {.stage = stage}), &n);
      ASSERT_TRUE(plans.ok()) << plans.status();
      for (const Plan& p : *plans) {
        const double w = RegionBytes(p, "parameters"), g = RegionBytes(p, "gradients"),
                     m = RegionBytes(p, "master weights"), v = RegionBytes(p, "moments");
        EXPECT_EQ(w, rows[stage].weights * n) << stage << " " << d;
        EXPECT_EQ(g, rows[stage].gradients * n) << stage << " " << d;
        EXPECT_EQ(m, rows[stage].master * n) << stage << " " << d;
        EXPECT_EQ(v, rows[stage].moments * n) << stage << " " << d;
        EXPECT_EQ(w + g + m + v, sums[stage] * n) << stage << " " << d;
      }
    }
  }
}

TEST(ZeroMemory, ThreeLevels) {  // weights and gradients over 2 ranks of a node, optimizer states over all 8
  double n = 0;
  const auto plans = PlansOf(Bf16Job(8, 1, {.stage = 3, .inner = 2, .scope = ZeroScope::kStates}), &n);
  ASSERT_TRUE(plans.ok()) << plans.status();
  for (const Plan& p : *plans) {
    EXPECT_EQ(RegionBytes(p, "parameters") + RegionBytes(p, "gradients"), 6 * n / 2);
    EXPECT_EQ(RegionBytes(p, "master weights") + RegionBytes(p, "moments"), 12 * n / 8);
  }
}

// Every element of every parameter and moment is stored, by one rank where it is sharded and by all where it is not.
TEST(ZeroMemory, RangesOfViewsCoverEveryElementOnce) {
  for (int64_t stage = 0; stage <= 3; ++stage) {
    JobConfig config = SmallJob(4, 2, 1);
    config.precision.compute = DType::kBF16;
    config.parallel.zero.stage = stage;
    const auto plans = PlansOf(config);
    ASSERT_TRUE(plans.ok()) << plans.status();
    for (const PlannedState& s : (*plans)[0].states) {
      if (!s.is_view || s.name.compare(0, 7, "bucket.") == 0) continue;
      std::vector<int> copies(static_cast<size_t>(s.box.shape.elements()));
      for (int rank = 0; rank < 8; rank += 2) {  // of tensor-parallel rank 0
        const PlannedState& mine = *(*plans)[rank].FindState(s.name);
        ASSERT_GE(mine.first, 0);
        ASSERT_LE(mine.first + mine.count, mine.box.shape.elements());
        for (int64_t i = mine.first; i < mine.first + mine.count; ++i) ++copies[i];
      }
      const bool sharded = stage >= (s.role == Role::kParam ? 3 : s.role == Role::kGrad ? 2 : 1);
      EXPECT_EQ(copies, std::vector<int>(copies.size(), sharded ? 1 : 4)) << s.name << " stage " << stage;
    }
  }
}

// Beside the shards, weights and gradients of a few blocks are whole at a time, however many blocks there are.
TEST(ZeroMemory, WholeBlocksAreFewAtATime) {
  const auto plan = [](int64_t layers, const ZeroConfig& zero) {
    JobConfig c = Bf16Job(4, 1, zero);
    c.model.layers = layers;
    c.model.dim = 64;
    const auto plans = PlansOf(c);
    EXPECT_TRUE(plans.ok()) << plans.status();
    return plans.ok() ? plans->at(0) : Plan{};
  };
  const ZeroConfig three{.stage = 3}, none_ahead{.stage = 3, .prefetch = 0}, all_ahead{.stage = 3, .prefetch = 64};
  const double four = RegionBytes(plan(4, three), "train transient"),
               eight = RegionBytes(plan(8, three), "train transient");
  EXPECT_EQ(four, eight);
  EXPECT_LT(RegionBytes(plan(8, none_ahead), "train transient"), eight);
  EXPECT_GT(RegionBytes(plan(8, all_ahead), "train transient"), eight);
  for (const int64_t stage : {1, 2, 3}) {
    EXPECT_LT(plan(8, {.stage = stage}).arena_bytes[0], plan(8, {.stage = stage - 1}).arena_bytes[0]) << stage;
  }
}

TEST(ZeroMemory, AsManyBlocksAheadAsFitTheLimit) {
  const auto bytes = [](int64_t prefetch, int64_t limit) {
    JobConfig c = Bf16Job(4, 1, {.stage = 3, .prefetch = prefetch});
    c.model.layers = 6;
    c.model.dim = 64;
    if (limit > 0) c.memory.limit = std::to_string(limit) + "B";
    const auto plans = PlansOf(c);
    EXPECT_TRUE(plans.ok()) << plans.status();
    return plans.ok() ? plans->at(0).arena_bytes[0] : 0;
  };
  const int64_t none = bytes(0, 0), two = bytes(2, 0), three = bytes(3, 0);
  ASSERT_LT(none, two);
  ASSERT_LT(two, three);
  EXPECT_EQ(bytes(64, two), two);
  EXPECT_EQ(bytes(64, three - 1), two);
  EXPECT_EQ(bytes(2, none), none);
}

struct Sent {
  std::map<std::string, double> bytes;  // of rank 0 in a step, without the loader's
  double n = 0;                         // elements
  double backward = 0;                  // those that backward reads: all but the weights of embedding and head
};

Sent SentBy(const JobConfig& config) {
  Sent sent;
  const int steps[] = {1};
  const absl::StatusOr<JobRun> run =
      RunJob(config, steps, TableRows(config.model.vocab, 3), std::numeric_limits<double>::infinity(), CpuKernels(),
             [&](const Job& job) {
               sent.n = ElementsOf(job);
               sent.backward = sent.n - ElementsOf(job, ".embed.params") - ElementsOf(job, ".head.1.params");
             });
  EXPECT_TRUE(run.ok()) << run.status();
  if (run.ok()) sent.bytes = run->bytes;
  sent.bytes.erase("loader all-reduce");
  return sent;
}

using Bytes = std::map<std::string, double>;

TEST(ZeroTraffic, FollowsTheFormulas) {
  constexpr double kScalars = 2 * 4;  // the loss; sharded or not, and the norm
  for (const int64_t dp : {2, 4}) {
    for (const int64_t accumulate : {1, 2}) {
      const double d = static_cast<double>(dp), m = static_cast<double>(accumulate), part = (d - 1) / d;
      Sent s = SentBy(Bf16Job(dp, accumulate, {.stage = 0}));
      EXPECT_EQ(s.bytes, (Bytes{{"dp all-reduce", 2 * part * (4 * s.n + 4)}}));
      s = SentBy(Bf16Job(dp, accumulate, {.stage = 1}));
      EXPECT_EQ(s.bytes, (Bytes{{"dp reduce-scatter", part * 4 * s.n},
                                {"dp all-gather", part * 2 * s.n},
                                {"dp all-reduce", 2 * part * kScalars}}));
      s = SentBy(Bf16Job(dp, accumulate, {.stage = 2}));
      EXPECT_EQ(s.bytes, (Bytes{{"dp reduce-scatter", m * part * 4 * s.n},
                                {"dp all-gather", part * 2 * s.n},
                                {"dp all-reduce", 2 * part * kScalars}}));
      s = SentBy(Bf16Job(dp, accumulate, {.stage = 3}));
      EXPECT_EQ(s.bytes, (Bytes{{"dp reduce-scatter", m * part * 4 * s.n},
                                {"dp all-gather", m * part * 2 * (s.n + s.backward)},
                                {"dp all-reduce", 2 * part * kScalars}}));
    }
  }
}

// What is exchanged is what a reduce-scatter sends; in bf16 half of it.
TEST(ZeroTraffic, ByAllToAll) {
  for (const int64_t dp : {2, 4}) {
    const double d = static_cast<double>(dp), m = 2, part = (d - 1) / d;
    constexpr double kScalars = 2 * 4;
    for (const auto& [wire, size] : {std::pair(Wire::kExact, 4), std::pair(Wire::kBf16, 2)}) {
      Sent s = SentBy(Bf16Job(dp, 2, {.stage = 1, .gradients = wire, .scatter_by = ScatterBy::kAllToAll}));
      EXPECT_EQ(s.bytes, (Bytes{{"dp all-to-all", part * size * s.n},
                                {"dp all-gather", part * 2 * s.n},
                                {"dp all-reduce", 2 * part * kScalars}}));
      s = SentBy(Bf16Job(dp, 2, {.stage = 2, .gradients = wire, .scatter_by = ScatterBy::kAllToAll}));
      EXPECT_EQ(s.bytes, (Bytes{{"dp all-to-all", m * part * size * s.n},
                                {"dp all-gather", part * 2 * s.n},
                                {"dp all-reduce", 2 * part * kScalars}}));
    }
  }
}

TEST(ZeroTraffic, ShardsWithinANodeAreSummedBetweenNodes) {
  const Sent s = SentBy(Bf16Job(4, 1, {.stage = 1, .inner = 2, .scope = ZeroScope::kInner}));
  EXPECT_EQ(s.bytes, (Bytes{{"dp.i reduce-scatter", 0.5 * 4 * s.n},
                            {"dp.o all-reduce", 2 * 0.5 * 4 * s.n / 2},
                            {"dp.i all-gather", 0.5 * 2 * s.n},
                            {"dp.i all-reduce", 2 * 0.5 * 4},
                            {"dp.i+dp.o all-reduce", 2 * 0.75 * 4}}));
}

TEST(ZeroTraffic, StatesOverAllCrossBetweenNodesOnceAStep) {
  const Sent s = SentBy(Bf16Job(4, 2, {.stage = 3, .inner = 2, .scope = ZeroScope::kStates}));
  EXPECT_EQ(s.bytes, (Bytes{{"dp.i reduce-scatter", 2 * 0.5 * 4 * s.n},
                            {"dp.i all-gather", 2 * 0.5 * 2 * (s.n + s.backward)},
                            {"dp.o reduce-scatter", 0.5 * 4 * s.n / 2},
                            {"dp.o all-gather", 0.5 * 2 * s.n / 2},
                            {"dp.i+dp.o all-reduce", 2 * 0.75 * (4 + 4)}}));
}

// A ring over all ranks crosses each border of a node once, so a node sends over slow links what one rank sends in all; over
// dp.o, it sends what its `inner` ranks send.
double BetweenNodes(const Sent& s, double inner) {
  double bytes = 0;
  for (const auto& [call, sent] : s.bytes) {
    if (call == "dp.i+dp.o all-reduce") continue;  // loss and norm: a few bytes
    if (call.rfind("dp.i+dp.o ", 0) == 0) bytes += sent;
    if (call.rfind("dp.o ", 0) == 0) bytes += inner * sent;
  }
  return bytes;
}

// ZeRO++: of 3 M, M the weights in bf16, with gradients in bf16, 0.75 M is left, and the scales: 4 bytes in 256 elements.
TEST(ZeroTraffic, BetweenNodesPlusPlus) {
  JobConfig config = Bf16Job(4, 1, {.stage = 3, .inner = 2});
  const Sent exact = SentBy(config);
  config.parallel.zero = {.stage = 3, .inner = 2, .secondary = true, .weights = Wire::kInt8, .gradients = Wire::kInt4};
  const Sent plus = SentBy(config);
  const double n = plus.n;
  EXPECT_EQ(plus.bytes, (Bytes{{"dp.i+dp.o all-gather", 0.75 * n * 260 / 256},
                               {"dp.i all-gather", 0.5 * 2 * plus.backward},
                               {"dp.i all-to-all", 0.5 * n * 132 / 256},
                               {"dp.o all-to-all", 0.5 * n / 2 * 132 / 256},
                               {"dp.i+dp.o all-reduce", 2 * 0.75 * (4 + 4)}}));
  EXPECT_EQ(BetweenNodes(exact, 2), 0.75 * (2 * exact.n + 2 * exact.backward + 4 * exact.n));
  EXPECT_EQ(BetweenNodes(plus, 2), 0.75 * n * 260 / 256 + 0.5 * n * 132 / 256);
}

}  // namespace
}  // namespace strata
