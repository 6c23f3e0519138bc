// The shard pass on a small Llama: in every layout each value, put together again, equals the one-rank run in float64.

#include "parallel/shard/shard_pass.h"

#include <gtest/gtest.h>

#include "parallel/shard/count.h"
#include "tests/testing/sharded_run.h"
#include "tests/testing/tiny_llama.h"

namespace strata {
namespace {

using testing::Residual;
using testing::TinyLlama;

struct LayoutCase {
  std::string name;
  std::vector<MeshAxis> axes;
  Residual residual = Residual::kReplicated;
};

constexpr Residual kSp = Residual::kSequenceParallel;
const LayoutCase kLayouts[] = {
    {"dp2", {{"dp", 2}}},
    {"dp4", {{"dp", 4}}},
    {"tp2", {{"tp", 2}}},
    {"tp4", {{"tp", 4}}},
    {"tp2x2", {{"tp.o", 2}, {"tp.i", 2}}},
    {"tp2_sp", {{"tp", 2}}, kSp},
    {"tp4_sp", {{"tp", 4}}, kSp},
    {"dp2_tp2", {{"dp", 2}, {"tp", 2}}},
    {"dp2_tp2_sp", {{"dp", 2}, {"tp", 2}}, kSp},
    {"cp2", {{"cp", 2}}},
    {"dp2_cp2_tp2", {{"dp", 2}, {"cp", 2}, {"tp", 2}}},
    {"dp2_cp2_tp2_sp", {{"dp", 2}, {"cp", 2}, {"tp", 2}}, kSp},
};

absl::StatusOr<Graph> Sharded(const Graph& graph, const LayoutCase& layout, const TinyLlama& config,
                              const ShardOptions& options = {}) {
  int ranks = 1;
  for (const MeshAxis& a : layout.axes) ranks *= a.size;
  const absl::StatusOr<Mesh> mesh = Mesh::Make(layout.axes, ranks, 0);
  if (!mesh.ok()) return mesh.status();
  return ShardPass(graph, *mesh, testing::TinyLlamaPins(layout.axes, layout.residual, config), options);
}

class ShardLayouts : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(ShardLayouts, EveryValueEqualsOneRank) {
  const TinyLlama config;
  const absl::StatusOr<Graph> graph = testing::BuildTinyLlama(config);
  ASSERT_TRUE(graph.ok()) << graph.status();
  const absl::StatusOr<Graph> sharded = Sharded(*graph, GetParam(), config);
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  const Mesh mesh = *Mesh::Make(GetParam().axes, [&]{int r=1; for (auto&a:GetParam().axes) r*=a.size; return r;}(), 0);
  printf("%s\n%s", GetParam().name.c_str(), ToString(CountCollectives(*sharded, mesh), mesh).c_str());
  const absl::StatusOr<double> worst =
      testing::WorstDifference(*graph, *sharded, GetParam().axes, testing::TinyLlamaBindings(*graph, config));
  ASSERT_TRUE(worst.ok()) << worst.status();
  EXPECT_LE(*worst, 1e-10);
  printf("worst %g\n", *worst);
}
TEST_P(ShardLayouts, Big) {
  TinyLlama config{8, 8192, 4096, 32, 2, 128, 14336, 131072, 2, DType::kBF16};
  const absl::StatusOr<Graph> graph = testing::BuildTinyLlama(config);
  ASSERT_TRUE(graph.ok()) << graph.status();
  const Mesh mesh = *Mesh::Make(GetParam().axes, [&]{int r=1; for (auto&a:GetParam().axes) r*=a.size; return r;}(), 0);
  for (bool keep : {true, false}) {
  ShardOptions o; o.keep_gathered=keep;
  const absl::StatusOr<Graph> sharded = Sharded(*graph, GetParam(), config,o);
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  printf("%s keep=%d\nall\n%sblock\n%s", GetParam().name.c_str(), keep, ToString(CountCollectives(*sharded, mesh), mesh).c_str(), ToString(CountCollectives(*sharded, mesh,1), mesh).c_str());
  }
}
INSTANTIATE_TEST_SUITE_P(All, ShardLayouts, ::testing::ValuesIn(kLayouts), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace strata
