// What runs beside the computing is decided in the plan: where collectives, transfers and updates stand, that no wait is
// missing, and that none is there in vain.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/graph/builder.h"
#include "core/ops/linear.h"
#include "core/plan/access_order.h"
#include "core/plan/split_rows.h"
#include "launch/job/compile.h"
#include "tests/testing/layout_table.h"

namespace strata {
namespace {

using ::testing::HasSubstr;

std::vector<Plan> PlansOf(const std::string& words, Overlap overlap = Overlap::kOn,
                          Transport transport = Transport::kAuto, ReduceScatterBy scatter = ReduceScatterBy::kAuto) {
  JobConfig config = testing::ParseLayoutRow(words).config;
  config.parallel.reduce_scatter = scatter;
  config.parallel.overlap = overlap;
  config.parallel.comm.transport = transport;
  const KernelTable kernels = CpuKernels();
  const auto job = CompileTraining(config, kernels);
  EXPECT_TRUE(job.ok()) << job.status();
  auto plans = PlanRanks(*job, kernels);
  EXPECT_TRUE(plans.ok()) << plans.status();
  return *std::move(plans);
}

struct Placed {
  const Action* action;
  const Step* step;
  const std::string* stream;
};
std::vector<Placed> IssuedBy(const Plan& plan, std::string_view program = "train") {
  const Program& p = *plan.FindProgram(program);
  std::vector<Placed> list;
  for (const IssuedStep& i : p.issues) {
    if (i.step < 0) continue;
    const Action& a = p.actions[i.action];
    list.push_back({&a, &p.segments[p.SegmentOf(a)].steps[i.step], &plan.streams[i.stream].name});
  }
  return list;
}

bool Is(const Placed& p, std::string_view op) { return p.step->op != nullptr && p.step->op->name() == op; }

TEST(AccessOrder, FollowsWritersAndReaders) {
  AccessOrder order;
  std::vector<AccessOrder::After> after;
  order.Write(0, 0, 100, after);
  order.Write(1, 100, 200, after);
  EXPECT_TRUE(after.empty());
  order.Read(2, 50, 150, after);  // of both
  ASSERT_EQ(after.size(), 2u);
  EXPECT_TRUE(after[0].item == 0 && after[0].reads_it && after[1].item == 1 && after[1].reads_it);
  after.clear();
  order.Write(3, 0, 60, after);  // over 0, where 2 has read a part
  ASSERT_EQ(after.size(), 3u);
  EXPECT_FALSE(after[0].reads_it || after[1].reads_it || after[2].reads_it);
  after.clear();
  order.Read(4, 60, 100, after);
  ASSERT_EQ(after.size(), 1u);
  EXPECT_EQ(after[0].item, 0);
  after.clear();
  order.Read(4, 7, 7, after);
  order.Read(5, 300, 400, after);  // by nobody
  EXPECT_TRUE(after.empty());
}

// Each wait that the plan has is one that VerifyPlans misses, so all are needed; and with all of them it finds nothing.
TEST(Overlap, EveryWaitIsNeeded) {
  const auto exchange = ReduceScatterBy::kExchange;
  for (const auto& [words, scatter] :
       {std::pair("llama dp2 zero1 acc2", ReduceScatterBy::kTransport), std::pair("llama dp2 zero1 acc2", exchange),
        std::pair("llama dp2 zero3 acc2", ReduceScatterBy::kTransport),
        std::pair("llama tp2 sp", ReduceScatterBy::kTransport), std::pair("llama tp2 sp", exchange),
        std::pair("llama layers4 1f1b pp2 acc4", ReduceScatterBy::kTransport)}) {
    SCOPED_TRACE(words);
    std::vector<Plan> plans = PlansOf(words, Overlap::kOn, Transport::kAuto, scatter);
    ASSERT_TRUE(VerifyPlans(plans).ok());
    Program& train = plans[0].programs[0];
    ASSERT_EQ(train.name, "train");
    int waits = 0;
    for (IssuedStep& i : train.issues) {
      for (size_t w = 0; w < i.waits.size(); ++w) {
        const std::vector<int32_t> all = i.waits;
        i.waits.erase(i.waits.begin() + static_cast<long>(w));
        const absl::Status s = VerifyPlans(plans);
        EXPECT_THAT(std::string(s.message()), HasSubstr("is not waited for"))
            << "wait " << w << " of a step on stream " << i.stream;
        i.waits = all;
        ++waits;
      }
    }
    EXPECT_GT(waits, 4);
  }
}

TEST(Overlap, BucketsAreReducedBehindTheLastBackward) {
  const std::vector<Plan> plans = PlansOf("llama layers4 dp2 zero1 acc2");
  const std::vector<Placed> list = IssuedBy(plans[0]);
  int early = 0, reduces = 0;
  size_t last_backward = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].action->kind == Action::kB) last_backward = i;
  }
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].step->kind != Step::kCollective || list[i].step->call.kind != Collective::kReduceScatter) continue;
    ++reduces;
    EXPECT_EQ(*list[i].stream, "collectives dp");
    early += i < last_backward ? 1 : 0;
  }
  EXPECT_EQ(reduces, 6);  // embedding, four blocks, head
  EXPECT_EQ(early, 5);    // that of the embedding is made last
}

TEST(Overlap, UpdatesRunBesideTheNextRun) {
  for (const char* words : {"llama", "llama dp2 zero1"}) {
    const std::vector<Plan> plans = PlansOf(words);
    const Program& train = plans[0].programs[0];
    std::vector<int32_t> left;  // events of updates
    for (const IssuedStep& i : train.issues) {
      if (plans[0].streams[i.stream].name != "update") continue;
      EXPECT_EQ(train.actions[i.action].kind, Action::kUpdate);
      if (i.record >= 0) left.push_back(i.record);
    }
    EXPECT_FALSE(left.empty());
    EXPECT_EQ(plans[0].streams.front().name, "compute");
    // The reading of the outputs waits for none of them, and no forward waits for all at once.
    const auto waits_for = [&](const IssuedStep& i) {
      return std::count_if(i.waits.begin(), i.waits.end(),
                           [&](int32_t e) { return std::find(left.begin(), left.end(), e) != left.end(); });
    };
    for (const IssuedStep& i : train.issues) EXPECT_LE(waits_for(i), 1);
    EXPECT_EQ(train.issues.back().step >= 0 || waits_for(train.issues.back()) == 0, true);
  }
}

// The shards of a micro-batch are added up behind the reduction, where nothing that computes waits for it.
TEST(Overlap, ShardsAreAddedUpOnTheStreamOfTheirReduction) {
  const std::vector<Plan> plans = PlansOf("llama layers4 dp2 zero2 acc2");
  int sums = 0;
  for (const Placed& p : IssuedBy(plans[0])) {
    if (!Is(p, "accumulate") || p.action->kind != Action::kB || p.step->scope.find("bucket.") == std::string::npos)
      continue;
    EXPECT_EQ(*p.stream, "collectives dp");
    ++sums;
  }
  EXPECT_EQ(sums, 2 * 6);
}

TEST(Overlap, WeightsAreGatheredAhead) {
  const std::vector<Plan> plans = PlansOf("llama layers4 dp2 zero3");
  const std::vector<Placed> list = IssuedBy(plans[0]);
  // The third block's weights are on their way before the second block's last product is issued.
  const auto first = [&](std::string_view what, Collective::Kind kind, Action::Kind action) {
    return std::find_if(list.begin(), list.end(), [&](const Placed& p) {
      return p.action->kind == action && p.step->kind == Step::kCollective && p.step->call.kind == kind &&
             p.step->scope.find(what) != std::string::npos;
    });
  };
  const auto gather = first("bucket.blocks.2", Collective::kAllGather, Action::kF);
  ASSERT_NE(gather, list.end());
  const auto used = std::find_if(gather, list.end(), [](const Placed& p) {
    return p.step->kind == Step::kLaunch && p.step->scope.find("blocks.1.") != std::string::npos;
  });
  EXPECT_NE(used, list.end());
}

// Sums over stages are of ranks that run other actions: an early one would keep its stream waiting all step.
TEST(Overlap, SumsOverStagesStayInTheUpdate) {
  for (const Plan& plan : PlansOf("llama layers4 1f1b pp2 acc4")) {
    bool updating = false;
    for (const Placed& p : IssuedBy(plan)) {
      updating |= p.action->kind == Action::kUpdate;
      if (p.step->kind == Step::kCollective && *p.stream == "collectives pp") {
        EXPECT_TRUE(updating);
      }
    }
    EXPECT_TRUE(updating);
  }
}

// A product and the collective before or after it, in groups of rows, each on its stream; without groups, whole.
TEST(Overlap, TensorParallelProductsAreSplitByRows) {
  for (const int64_t groups : {1, 2, 4}) {
    SCOPED_TRACE(groups);
    JobConfig config = testing::ParseLayoutRow("llama tp2 sp keep").config;
    config.parallel.overlap = Overlap::kOn;
    config.parallel.overlap_groups = groups;
    const KernelTable kernels = CpuKernels();
    const auto job = CompileTraining(config, kernels);
    ASSERT_TRUE(job.ok()) << job.status();
    const auto plans = PlanRanks(*job, kernels);
    ASSERT_TRUE(plans.ok()) << plans.status();
    int gathers = 0, scatters = 0, rows = 0;
    for (const Placed& p : IssuedBy((*plans)[0])) {
      if (p.action->kind != Action::kF || p.step->kind != Step::kCollective) continue;
      if (p.step->scope.find("blocks.1.attn") == std::string::npos) continue;
      gathers += p.step->call.kind == Collective::kAllGather ? 1 : 0;
      scatters += p.step->call.kind == Collective::kReduceScatter ? 1 : 0;
      rows += p.step->calls;
      EXPECT_EQ(p.step->calls, p.step->call.kind == Collective::kReduceScatter ? 8 / groups : p.step->calls);
    }
    EXPECT_EQ(rows, 2 * 8);  // of 8 sequences
    EXPECT_EQ(gathers, groups);
    EXPECT_EQ(scatters, groups);
  }
}

// A sum that is scattered is an exchange and a launch behind it on the communicator's stream; no transport adds anything but what all
// ranks get. Rows of a product are exchanged in groups, and added up at once.
TEST(Overlap, ScattersMayBeExchanges) {
  for (const auto& [words, rows] : {std::pair("llama tp2 sp keep", 8), std::pair("llama dp2 zero1 acc2", 1)}) {
    SCOPED_TRACE(words);
    const auto plans = PlansOf(words, Overlap::kOn, Transport::kAuto, ReduceScatterBy::kExchange);
    int sums = 0, exchanges = 0, calls = 0, most = 0;  // of the next sum
    for (const Placed& p : IssuedBy(plans[0])) {
      const bool called = p.step->kind == Step::kCollective;
      EXPECT_FALSE(called && p.step->call.kind == Collective::kReduceScatter);
      if (called && p.step->call.kind == Collective::kAllToAll) {
        ++exchanges;
        calls += p.step->calls;
      }
      if (!Is(p, "sum_blocks")) continue;
      ++sums;
      EXPECT_EQ(p.stream->substr(0, 12), "collectives ");
      EXPECT_EQ(p.step->in[0].view.shape, (Shape{calls, 2, p.step->out[0].view.shape[1]}));
      most = std::max(most, exchanges);
      exchanges = calls = 0;
    }
    EXPECT_GT(sums, 3);
    EXPECT_EQ(most, rows == 8 ? 2 : 1);
  }
}

TEST(SplitRows, KeepsWhatMemoryForbids) {
  // product: x[4, 2, 8] at 0 -> y[4, 2, 8] at 512; reduce-scatter over 2: y -> z[4, 1, 8], in `z_at`.
  const auto segment = [](int64_t z_at) {
    const auto operand = [](int64_t offset, Shape shape) {
      return Operand{.ref = {0, offset}, .view = Contiguous(nullptr, DType::kF64, shape)};
    };
    Graph graph = [] {
      GraphBuilder g;
      const Value x = g.Input("x", {DType::kF64, {4, 2, 8}, {}}), w = g.Input("w", {DType::kF64, {8, 8}, {}});
      g.Output("y", Linear(g, x, w));
      return *std::move(g).Build();
    }();
    Segment s;
    s.steps.push_back({.op = graph.nodes[graph.outputs.at("y").node].op,
                       .in = {operand(0, {4, 2, 8}), operand(4096, {8, 8})},
                       .out = {operand(512, {4, 2, 8})}});
    Step scatter{.kind = Step::kCollective, .in = {operand(512, {4, 2, 8})}, .out = {operand(z_at, {4, 1, 8})}};
    scatter.calls = 4;
    scatter.call = {.kind = Collective::kReduceScatter, .dtype = DType::kF64, .count = 16};
    s.steps.push_back(scatter);
    s.frees.push_back({1, {0, 512}, 512});
    return s;
  };
  Segment apart = segment(2048);
  SplitRows(apart, 2);
  ASSERT_EQ(apart.steps.size(), 4u);
  EXPECT_EQ(apart.steps[0].kind, Step::kLaunch);
  EXPECT_EQ(apart.steps[1].kind, Step::kCollective);
  EXPECT_EQ(apart.steps[2].in[0].ref.offset, 256);
  EXPECT_EQ(apart.steps[2].in[1].ref.offset, 4096);
  EXPECT_EQ(apart.steps[2].out[0].ref.offset, 512 + 256);
  EXPECT_EQ(apart.steps[3].calls, 2);
  EXPECT_EQ(apart.steps[3].out[0].ref.offset, 2048 + 128);
  EXPECT_EQ(apart.frees[0].after_step, 3);
  Segment over_its_input = segment(0);  // z lies where x was: a later group of x would be gone
  SplitRows(over_its_input, 2);
  EXPECT_EQ(over_its_input.steps.size(), 2u);
  Segment whole = segment(2048);
  SplitRows(whole, 1);
  EXPECT_EQ(whole.steps.size(), 2u);
}

TEST(Overlap, OffMeansOneStream) {
  for (const Plan& plan : PlansOf("llama dp2 zero1 acc2", Overlap::kOff)) {
    EXPECT_EQ(plan.streams.size(), 1u);
    for (const Program& p : plan.programs) EXPECT_TRUE(p.issues.empty());
  }
}

// Calls that are staged through the host hold the thread until the computing is done.
TEST(Overlap, StagedCallsMeanOneStream) {
  for (const Plan& plan : PlansOf("llama dp2 zero1 acc2", Overlap::kOn, Transport::kHost)) {
    EXPECT_EQ(plan.streams.size(), 1u);
    for (const Program& p : plan.programs) EXPECT_TRUE(p.issues.empty());
  }
}

}  // namespace
}  // namespace strata
