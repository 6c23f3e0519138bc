// Pins, hard rules, expansions and messages of the shard pass, and its exact solver.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "core/base/glob.h"
#include "core/graph/autograd.h"
#include "core/graph/builder.h"
#include "core/graph/op.h"
#include "core/ops/collective.h"
#include "core/ops/elementwise.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"
#include "parallel/shard/min_sum.h"
#include "parallel/shard/pins.h"
#include "parallel/shard/shard_pass.h"
#include "tests/testing/sharded_run.h"
#include "tests/testing/tiny_llama.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::Tensor;

Mesh MeshOf(const std::vector<MeshAxis>& axes) {
  int ranks = 1;
  for (const MeshAxis& a : axes) ranks *= a.size;
  return *Mesh::Make(axes, ranks, 0);
}

TEST(Pins, StarMatchesAnyRun) {
  EXPECT_TRUE(GlobMatches("blocks.*.wq", "blocks.3.attn.wq"));
  EXPECT_TRUE(GlobMatches("*", ""));
  EXPECT_TRUE(GlobMatches("a*b*c", "a.b.b.c"));
  EXPECT_FALSE(GlobMatches("blocks.*.wq", "blocks.3.attn.wq2"));
  EXPECT_FALSE(GlobMatches("wq", "blocks.3.wq"));
}

TEST(Pins, FirstMatchWinsAndAnAxisNamesItsFactors) {
  const std::vector<Pin> pins = {{"w", "tp.i", Replicate()}, {"w", "tp", Shard(0)}, {"w", "tp", Shard(1)}};
  EXPECT_EQ(FindPin(pins, "w", "tp.o")->placement, Shard(0));
  EXPECT_EQ(FindPin(pins, "w", "tp.i")->placement, Replicate());
  EXPECT_EQ(FindPin(pins, "w", "tpx"), nullptr);
  EXPECT_EQ(FindPin(pins, "v", "tp"), nullptr);
}

// Random tables over few variables against all assignments.
TEST(MinSum, FindsTheLeastSum) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const int n = 5;
    std::vector<int> domain;
    std::vector<std::pair<std::vector<int>, std::vector<double>>> tables;
    MinSum problem;
    for (int v = 0; v < n; ++v) domain.push_back(1 + static_cast<int>(random() % 3));
    for (int d : domain) problem.AddVariable(d);
    for (int t = 0; t < 7; ++t) {
      const int a = static_cast<int>(random() % n), b = static_cast<int>(random() % n);
      std::vector<int> variables = a == b ? std::vector<int>{a} : std::vector<int>{a, b};
      std::vector<double> costs(a == b ? domain[a] : domain[a] * domain[b]);
      for (double& c : costs) c = static_cast<double>(random() % 100);
      problem.AddTable(variables, costs);
      tables.emplace_back(variables, costs);
    }
    const auto total = [&](const std::vector<int>& value) {
      double sum = 0;
      for (const auto& [variables, costs] : tables) {
        int at = 0;
        for (int v : variables) at = at * domain[v] + value[v];
        sum += costs[at];
      }
      return sum;
    };
    double best = kForbidden;
    std::vector<int> value(n, 0);
    for (bool more = true; more;) {
      best = std::min(best, total(value));
      more = false;
      for (int v = 0; v < n && !more; ++v) {
        more = ++value[v] < domain[v];
        if (!more) value[v] = 0;
      }
    }
    const absl::StatusOr<std::vector<int>> found = std::move(problem).Solve();
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_EQ(total(*found), best) << round;
  }
}

// y = W2 (W1 x): column- then row-parallel.
struct TwoLayers {
  GraphBuilder g;
  Value x = g.Input("x", {DType::kF64, {4, 6, 8}, {}});
  Value w1 = g.Read(g.Declare({"w1", Role::kParam, {DType::kF64, {12, 8}, {}}}));
  Value w2 = g.Read(g.Declare({"w2", Role::kParam, {DType::kF64, {8, 12}, {}}}));
  Value h = Linear(g, x, w1), y = Linear(g, h, w2);
};
const std::vector<Pin> kMegatron = {{"w1", "tp", Shard(0)}, {"w2", "tp", Shard(1)}};

Placement OutputPlacement(const std::string& name, std::vector<Pin> pins) {
  TwoLayers m;
  m.g.Output(name, m.y);
  pins.insert(pins.end(), kMegatron.begin(), kMegatron.end());
  const absl::StatusOr<Graph> s = ShardPass(*std::move(m.g).Build(), MeshOf({{"tp", 2}}), pins);
  EXPECT_TRUE(s.ok()) << s.status();
  return s.ok() ? s->spec(s->outputs.at(name)).layout[0] : Placement{};
}

TEST(ShardOutputs, AreNotLeftUnreducedUnlessTheyAreLosses) {
  EXPECT_EQ(OutputPlacement("y", {}), Replicate());
  EXPECT_EQ(OutputPlacement("loss", {}), Partial());
  EXPECT_EQ(OutputPlacement("y", {{"y", "tp", Shard(1)}}), Shard(1));
  EXPECT_EQ(OutputPlacement("loss", {{"loss", "tp", Replicate()}}), Replicate());
}

TEST(ShardOutputs, ShardsStay) {
  TwoLayers m;
  m.g.Output("h", m.h);
  const absl::StatusOr<Graph> s = ShardPass(*std::move(m.g).Build(), MeshOf({{"tp", 2}}), kMegatron);
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->spec(s->outputs.at("h")).layout[0], Shard(2));
}

TEST(ShardPass, AnAxisOfOneRankIsReplicated) {
  TwoLayers m;
  m.g.Output("y", m.y);
  const Graph graph = *std::move(m.g).Build();
  const absl::StatusOr<Graph> s = ShardPass(graph, MeshOf({{"tp", 1}}), kMegatron);
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->nodes.size(), graph.nodes.size());
  for (const Node& n : s->nodes) EXPECT_EQ(n.outputs[0].layout, Layout{});
}

TEST(ShardPass, KeepsKeysScopesAndSourceLines) {
  const absl::StatusOr<Graph> graph = testing::BuildTinyLlama({});
  const std::vector<MeshAxis> axes = {{"tp", 2}};
  const absl::StatusOr<Graph> s =
      ShardPass(*graph, MeshOf(axes), testing::TinyLlamaPins(axes, testing::Residual::kSequenceParallel, {}));
  ASSERT_TRUE(s.ok()) << s.status();
  size_t i = 0;
  for (const Node& n : s->nodes) {
    if (AsCollective(n) != nullptr) continue;
    const Node& old = graph->nodes[i++];
    EXPECT_EQ(n.key, old.key);
    EXPECT_EQ(n.scope, old.scope);
    EXPECT_EQ(n.phase, old.phase);
    EXPECT_EQ(n.block, old.block);
    EXPECT_EQ(n.loc.line, old.loc.line);
    EXPECT_EQ(n.outputs[0].shape, old.outputs[0].shape);
    EXPECT_EQ(n.grad_of[0].valid(), old.grad_of[0].valid());
  }
  EXPECT_EQ(i, graph->nodes.size());
}

// A pinned residual: its value, and its gradient, which the pass finds by the identity's vjp.
TEST(ShardPass, PinsHoldForValueAndGradient) {
  const absl::StatusOr<Graph> graph = testing::BuildTinyLlama({});
  const std::vector<MeshAxis> axes = {{"tp", 2}};
  const absl::StatusOr<Graph> s =
      ShardPass(*graph, MeshOf(axes), testing::TinyLlamaPins(axes, testing::Residual::kSequenceParallel, {}));
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(s->spec(s->named.at("blocks.0.residual")).layout[0], Shard(1));
  int gradients = 0;
  for (const Node& n : s->nodes) {
    if (n.op->name() != "identity" || n.phase == Phase::kForward) continue;
    ++gradients;
    EXPECT_EQ(n.outputs[0].layout[0], Shard(1)) << n.scope;
  }
  EXPECT_EQ(gradients, 5);
}

TEST(ShardErrors, APinThatDoesNotDivideIsNamed) {
  TwoLayers m;
  m.g.Output("y", m.y);
  const absl::Status s = ShardPass(*std::move(m.g).Build(), MeshOf({{"tp", 5}}), kMegatron).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(s.message(),
              HasSubstr("w1 [12, 8] is pinned S0 on tp by \"w1\": dim 0 of [12, 8] does not divide by tp=5"));
}

// The second layer's weight lacks its pin: h is sharded, and would be gathered to compute y everywhere.
TEST(ShardErrors, ANodeWithoutAPlacementIsNamed) {
  TwoLayers m;
  m.g.Output("y", m.y);
  const absl::Status s =
      ShardPass(*std::move(m.g).Build(), MeshOf({{"tp", 2}}), std::vector<Pin>{{"w1", "tp", Shard(0)}}).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(s.message(), HasSubstr("no legal placement on axis tp for linear([4, 6, 12], [8, 12]): operand 1 takes"));
  EXPECT_THAT(s.message(), HasSubstr("shard_rules_test.cc"));
}

TEST(ShardErrors, APinThatNoRowMakesIsNamed) {
  TwoLayers m;
  m.g.Push("layer");
  const Value z = Mul(m.g, m.y, m.x);
  m.g.Name("z", z);
  m.g.Output("z", z);
  std::vector<Pin> pins = {{"layer.z", "tp", Partial()}};
  pins.insert(pins.end(), kMegatron.begin(), kMegatron.end());
  const absl::Status s = ShardPass(*std::move(m.g).Build(), MeshOf({{"tp", 2}}), pins).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(s.message(), HasSubstr("mul in layer has no legal row on axis tp that makes P"));
}

// A weight is never converted: two uses that want it differently cannot both be had.
TEST(ShardErrors, WeightsAreNotConverted) {
  GraphBuilder g;
  const Value x = g.Input("x", {DType::kF64, {4, 6, 8}, {}});
  const Value w = g.Read(g.Declare({"w", Role::kParam, {DType::kF64, {8, 8}, {}}}));
  const Value b = g.Read(g.Declare({"b", Role::kParam, {DType::kF64, {8, 8}, {}}}));
  g.Push("layer");
  g.Output("loss", Linear(g, x, Mul(g, w, b)));
  g.Pop();
  const absl::Status s = ShardPass(*std::move(g).Build(), MeshOf({{"tp", 2}}),
                                   std::vector<Pin>{{"w", "tp", Shard(0)}, {"b", "tp", Shard(1)}})
                             .status();
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(s.message(), HasSubstr("no legal placement on axis tp for mul([8, 8], [8, 8]) in layer"));
  EXPECT_THAT(s.message(), HasSubstr("but read ("));
}

// y = x * sum of x over dim 1: an op whose row for a sharded dim 1 is a small graph with a collective.
class SumTimes final : public Op {
 public:
  std::string_view name() const override { return "sum_times"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    return std::vector<TensorSpec>{{in[0].dtype, in[0].shape, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override {
    ShardRule whole_sum{{Shard(1)}, {Shard(1)}};
    whole_sum.expand = [](const ExpandArgs& a) -> absl::StatusOr<std::vector<Value>> {
      const Value part = ReduceSum(a.g, a.inputs[0], 1);
      const Value sum = Convert(a.g, part, static_cast<AxisSet>(1 << a.axis), Partial(), Replicate());
      return std::vector<Value>{Mul(a.g, a.inputs[0], Broadcast(a.g, sum, a.inputs[0], 1))};
    };
    return {{{Shard(0)}, {Shard(0)}}, whole_sum, {{Replicate()}, {Replicate()}}};
  }
  absl::StatusOr<std::vector<Value>> Decompose(GraphBuilder& g, std::span<const Value> in) const override {
    return std::vector<Value>{Mul(g, in[0], Broadcast(g, ReduceSum(g, in[0], 1), in[0], 1))};
  }
};

TEST(ShardExpand, ARowMayReplaceItsNode) {
  GraphBuilder g;
  const Value x = g.Input("x", {DType::kF64, {4, 6, 3}, {}});
  g.Output("y", Scale(g, g.Add(std::make_shared<SumTimes>(), {x})[0], 2));
  const Graph graph = *std::move(g).Build();
  const std::vector<MeshAxis> axes = {{"dp", 2}, {"cp", 2}};
  const std::vector<Pin> pins = {{"x", "dp", Shard(0)}, {"x", "cp", Shard(1)}};
  const absl::StatusOr<Graph> s = ShardPass(graph, MeshOf(axes), pins);
  ASSERT_TRUE(s.ok()) << s.status();
  const Value y = s->outputs.at("y");
  EXPECT_EQ(s->spec(y).layout[0], Shard(0));
  EXPECT_EQ(s->spec(y).layout[1], Shard(1));

  std::map<std::string, Tensor> bindings = {{"x", Tensor::Random(DType::kF64, {4, 6, 3}, 3)}};
  const absl::StatusOr<testing::RankValues> values = testing::RunSharded(*s, axes, bindings);
  ASSERT_TRUE(values.ok()) << values.status();
  std::vector<Tensor> parts;
  for (const auto& rank : *values) parts.push_back(rank[y.node][y.output]);
  const absl::StatusOr<Tensor> whole = testing::Reassemble(parts, s->spec(y), axes);
  ASSERT_TRUE(whole.ok()) << whole.status();
  const absl::StatusOr<Graph> plain = DecomposeOps(graph, [](const Op& op) { return op.name() == "sum_times"; });
  const auto want = testing::Evaluate(*plain, bindings);
  ASSERT_TRUE(want.ok()) << want.status();
  EXPECT_LE(testing::MaxAbsDiff(*whole, (*want)[plain->outputs.at("y").node][0]), 1e-13);
}

}  // namespace
}  // namespace strata
