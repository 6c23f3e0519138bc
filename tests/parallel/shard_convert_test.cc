// Conversions between all placements over one and two axes, run on thread ranks.

#include "parallel/shard/convert.h"

#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "core/graph/builder.h"
#include "core/ops/collective.h"
#include "tests/testing/sharded_run.h"

namespace strata {
namespace {

using testing::Tensor;

const Placement kMax = Partial(ReduceOp::kMax);
const TensorSpec kSpec = {DType::kF64, {8, 4, 3}, {}};

Mesh MeshOf(const std::vector<MeshAxis>& axes) {
  int ranks = 1;
  for (const MeshAxis& a : axes) ranks *= a.size;
  return *Mesh::Make(axes, ranks, 0);
}

std::string StepsText(const Route& route, const Mesh& mesh) {
  std::string text;
  for (const ConversionStep& s : route.steps) {
    absl::StrAppendFormat(&text, "%s%s %s->%s", text.empty() ? "" : ", ", mesh.Name(s.axes), ToString(s.from),
                          ToString(s.to));
  }
  return text;
}

// All layouts over the axes; a max is not mixed with a sum.
std::vector<Layout> Layouts(size_t axes, const std::vector<Placement>& placements) {
  std::vector<Layout> layouts = {Layout{}};
  for (size_t a = 0; a < axes; ++a) {
    std::vector<Layout> longer;
    for (Layout l : layouts) {
      for (Placement p : placements) {
        if (a > 0 && l[0].is_partial() && p.is_partial() && l[0] != p) continue;
        l[a] = p;
        longer.push_back(l);
      }
    }
    layouts = std::move(longer);
  }
  return layouts;
}

void ExpectAllConversions(const std::vector<MeshAxis>& axes) {
  const Mesh mesh = MeshOf(axes);
  GraphBuilder g;
  std::map<std::string, Tensor> bindings;
  std::vector<std::pair<Value, std::string>> results;  // input that each should equal
  for (const Layout& from : Layouts(axes.size(), {Replicate(), Shard(0), Shard(1), Partial(), kMax})) {
    TensorSpec spec = kSpec;
    spec.layout = from;
    const std::string name = ToString(from, mesh);
    const Value x = g.Input(name, spec);
    bindings[name] = Tensor::Random(spec.dtype, spec.shape, results.size() + 1);
    for (const Layout& to : Layouts(axes.size(), {Replicate(), Shard(0), Shard(1)})) {
      const absl::StatusOr<Route> route = FindRoute(spec, from, to, mesh, {});
      ASSERT_TRUE(route.ok()) << route.status();
      Value y = x;
      for (const ConversionStep& s : route->steps) y = Convert(g, y, s.axes, s.from, s.to);
      ASSERT_TRUE(g.status().ok()) << g.status();
      EXPECT_EQ(g.spec(y).layout, to);
      results.emplace_back(y, name);
    }
  }
  const absl::StatusOr<Graph> graph = std::move(g).Build();
  ASSERT_TRUE(graph.ok()) << graph.status();
  const absl::StatusOr<testing::RankValues> values = testing::RunSharded(*graph, axes, bindings);
  ASSERT_TRUE(values.ok()) << values.status();
  for (const auto& [v, name] : results) {
    std::vector<Tensor> parts;
    for (const auto& rank : *values) parts.push_back(rank[v.node][v.output]);
    const absl::StatusOr<Tensor> whole = testing::Reassemble(parts, graph->spec(v), axes);
    ASSERT_TRUE(whole.ok()) << whole.status();
    EXPECT_LE(testing::MaxAbsDiff(*whole, bindings.at(name)), 1e-14)
        << name << " to " << ToString(graph->spec(v).layout, mesh);
  }
}

TEST(ShardConvert, OneAxis) { ExpectAllConversions({{"a", 4}}); }
TEST(ShardConvert, TwoAxesWithNestedShards) { ExpectAllConversions({{"a", 2}, {"b", 2}}); }

struct RouteCase {
  Layout from, to;
  const char* steps;
};

TEST(ShardConvert, RoutesAreTheCheapOnes) {
  const Mesh mesh = MeshOf({{"a", 2}, {"b", 2}});
  const Placement R = Replicate(), P = Partial(), s0 = Shard(0), s1 = Shard(1);
  const RouteCase cases[] = {
      {{P, P}, {R, R}, "a+b P->R"},  // one collective over the product group
      {{s0, s0}, {R, R}, "a+b S0->R"},
      {{P, P}, {s0, s0}, "a+b P->S0"},
      {{P, P}, {R, s0}, "b P->S0, a P->R"},  // reduce-scatter first, then all-reduce the shard
      {{P, s0}, {R, R}, "a P->R, b S0->R"},  // gathers last
      {{s0, R}, {s1, R}, "a S0->S1"},
      {{R, s0}, {s0, s0}, "b S0->R, a+b R->S0"},   // the inner axis enters last
      {{kMax, R}, {s0, R}, "a Pmax->R, a R->S0"},  // a max is only all-reduced
  };
  for (const RouteCase& c : cases) {
    const absl::StatusOr<Route> route = FindRoute({DType::kF32, {1024, 1024}, {}}, c.from, c.to, mesh, {});
    ASSERT_TRUE(route.ok()) << c.steps;
    EXPECT_EQ(StepsText(*route, mesh), c.steps);
  }
}

TEST(ShardConvert, NothingBecomesPartial) {
  const Mesh mesh = MeshOf({{"a", 2}});
  for (Placement from : {Replicate(), Shard(0), kMax}) {
    EXPECT_EQ(FindRoute(kSpec, {from}, {Partial()}, mesh, {}).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_FALSE(IsConvertible(from, Partial()));
  }
}

TEST(ShardConvert, BytesOfOneStep) {
  EXPECT_DOUBLE_EQ(StepBytes(Partial(), Replicate(), 400, 4), 600);
  EXPECT_DOUBLE_EQ(StepBytes(Partial(), Shard(0), 400, 4), 300);
  EXPECT_DOUBLE_EQ(StepBytes(Shard(0), Replicate(), 400, 4), 300);
  EXPECT_DOUBLE_EQ(StepBytes(Shard(0), Shard(1), 400, 4), 75);
  EXPECT_DOUBLE_EQ(StepBytes(Replicate(), Shard(0), 400, 4), 0);
}

// Where the whole and a shard are both wanted, the shard is a slice of the whole.
TEST(ShardConvert, CopiesAreMadeFromOneAnother) {
  const Mesh mesh = MeshOf({{"a", 2}});
  const absl::StatusOr<std::vector<int>> sources =
      PlanCopies(kSpec, {Partial()}, {{Shard(0)}, {Replicate()}}, mesh, {});
  ASSERT_TRUE(sources.ok()) << sources.status();
  EXPECT_EQ(*sources, (std::vector<int>{1, -1}));
}

}  // namespace
}  // namespace strata
