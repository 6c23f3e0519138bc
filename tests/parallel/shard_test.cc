// The shard pass on a small Llama: in every layout each value, put together again, equals the one-rank run in float64,
// and the collectives are the known ones.

#include "parallel/shard/shard_pass.h"

#include <gtest/gtest.h>

#include <chrono>

#include "parallel/shard/count.h"
#include "tests/testing/sharded_run.h"
#include "tests/testing/tiny_llama.h"

namespace strata {
namespace {

using testing::Residual;
using testing::TinyLlama;

// Expected: collectives of one transformer block of a large model; and all, of two blocks with embedding, head and
// loss.
struct LayoutCase {
  std::string name;
  std::vector<MeshAxis> axes;
  Residual residual = Residual::kReplicated;
  std::string block, all;
};

constexpr Residual kSp = Residual::kSequenceParallel;
const LayoutCase kLayouts[] = {
    {"dp2", {{"dp", 2}}, {}, "", ""},
    {"dp4", {{"dp", 4}}, {}, "", ""},
    // Embedding 1, two blocks of 2, loss 3 of [B, S]; backward: head 1.
    {"tp2", {{"tp", 2}}, {}, "F tp all_reduce 2; I tp all_reduce 2", "F tp all_reduce 8; I tp all_reduce 5"},
    {"tp4_kv_replicated",
     {{"tp", 4}},
     {},
     "F tp all_reduce 2; I tp all_reduce 2",
     "F tp all_reduce 8; I tp all_reduce 5"},
    {"tp2x2_factored",
     {{"tp.o", 2}, {"tp.i", 2}},
     {},
     "F tp.o+tp.i all_reduce 2; I tp.o+tp.i all_reduce 2",
     "F tp.o+tp.i all_reduce 8; I tp.o+tp.i all_reduce 5"},
    // The head gathers in forward and the embedding in backward; of the loss, only what backward needs whole is
    // all-reduced.
    {"tp2_sp",
     {{"tp", 2}},
     kSp,
     "F tp all_gather 2; F tp reduce_scatter 2; I tp all_gather 2; I tp reduce_scatter 2",
     "F tp all_reduce 2; F tp all_gather 5; F tp reduce_scatter 6; I tp all_gather 4; I tp reduce_scatter 5; W tp "
     "all_gather 1"},
    {"tp4_sp_kv_replicated",
     {{"tp", 4}},
     kSp,
     "F tp all_gather 4; F tp reduce_scatter 2; I tp all_gather 2; I tp reduce_scatter 4",
     "F tp all_reduce 2; F tp all_gather 9; F tp reduce_scatter 6; I tp all_gather 4; I tp reduce_scatter 9; W tp "
     "all_gather 1"},
    {"dp2_tp2",
     {{"dp", 2}, {"tp", 2}},
     {},
     "F tp all_reduce 2; I tp all_reduce 2",
     "F tp all_reduce 8; I tp all_reduce 5"},
    {"dp2_tp2_sp",
     {{"dp", 2}, {"tp", 2}},
     kSp,
     "F tp all_gather 2; F tp reduce_scatter 2; I tp all_gather 2; I tp reduce_scatter 2",
     "F tp all_reduce 2; F tp all_gather 5; F tp reduce_scatter 6; I tp all_gather 4; I tp reduce_scatter 5; W tp "
     "all_gather 1"},
    // Keys and values; the positions of the keys once.
    {"cp2", {{"cp", 2}}, {}, "F cp all_gather 2; I cp reduce_scatter 2", "F cp all_gather 5; I cp reduce_scatter 4"},
    {"dp2_cp2_tp2",
     {{"dp", 2}, {"cp", 2}, {"tp", 2}},
     {},
     "F cp all_gather 2; F tp all_reduce 2; I cp reduce_scatter 2; I tp all_reduce 2",
     "F cp all_gather 5; F tp all_reduce 8; I cp reduce_scatter 4; I tp all_reduce 5"},
    {"dp2_cp2_tp2_sp",
     {{"dp", 2}, {"cp", 2}, {"tp", 2}},
     kSp,
     "F cp all_gather 2; F tp all_gather 2; F tp reduce_scatter 2; "
     "I cp reduce_scatter 2; I tp all_gather 2; I tp reduce_scatter 2",
     "F cp all_gather 5; F tp all_reduce 2; F tp all_gather 5; F tp reduce_scatter 6; "
     "I cp reduce_scatter 4; I tp all_gather 4; I tp reduce_scatter 5; W tp all_gather 1"},
};

TinyLlama Large(int layers) {
  TinyLlama c{8, 8192, 4096, 32, 2, 128, 14336, 131072, layers, DType::kBF16, 0};
  return c;
}

Mesh MeshOf(const std::vector<MeshAxis>& axes) {
  int ranks = 1;
  for (const MeshAxis& a : axes) ranks *= a.size;
  return *Mesh::Make(axes, ranks, 0);
}

absl::StatusOr<Graph> Sharded(const Graph& graph, const LayoutCase& layout, const TinyLlama& config,
                              const ShardOptions& options = {}) {
  return ShardPass(graph, MeshOf(layout.axes), testing::TinyLlamaPins(layout.axes, layout.residual, config), options);
}

std::string Counts(const Graph& graph, const Mesh& mesh, int block) {
  std::string text;
  for (CollectiveTotal t : CountCollectives(graph, mesh, block)) {
    t.bytes = 0;
    const std::string line = ToString({t}, mesh);
    text += (text.empty() ? "" : "; ") + line.substr(0, line.find(" ("));
  }
  return text;
}

class ShardLayouts : public ::testing::TestWithParam<LayoutCase> {
 protected:
  void ExpectEqualsOneRank(const TinyLlama& config, const ShardOptions& options = {}) {
    const absl::StatusOr<Graph> graph = testing::BuildTinyLlama(config);
    ASSERT_TRUE(graph.ok()) << graph.status();
    const absl::StatusOr<Graph> sharded = Sharded(*graph, GetParam(), config, options);
    ASSERT_TRUE(sharded.ok()) << sharded.status();
    const absl::StatusOr<double> worst =
        testing::WorstDifference(*graph, *sharded, GetParam().axes, testing::TinyLlamaBindings(*graph, config));
    ASSERT_TRUE(worst.ok()) << worst.status();
    EXPECT_LE(*worst, 1e-10);
    EXPECT_EQ(sharded->named.size(), graph->named.size());
    EXPECT_EQ(sharded->updates.size(), graph->updates.size());
  }
};

TEST_P(ShardLayouts, EveryValueEqualsOneRank) { ExpectEqualsOneRank({}); }

TEST_P(ShardLayouts, EveryValueEqualsOneRankWhereGatheredIsDropped) {
  ShardOptions options;
  options.keep_gathered = false;
  ExpectEqualsOneRank({}, options);
}

TEST_P(ShardLayouts, EveryValueEqualsOneRankWithChunkedHead) {
  TinyLlama config;
  config.head_chunks = 2;
  ExpectEqualsOneRank(config);
}

TEST_P(ShardLayouts, CollectivesAreTheKnownOnes) {
  const absl::StatusOr<Graph> graph = testing::BuildTinyLlama(Large(2));
  ASSERT_TRUE(graph.ok()) << graph.status();
  const absl::StatusOr<Graph> sharded = Sharded(*graph, GetParam(), Large(2));
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  const Mesh mesh = MeshOf(GetParam().axes);
  EXPECT_EQ(Counts(*sharded, mesh, 1), GetParam().block);
  EXPECT_EQ(Counts(*sharded, mesh, -1), GetParam().all);
}

// A parameter's gradient is sharded as it is, or left unreduced where tokens are sharded; the loss sum likewise.
TEST_P(ShardLayouts, AccumulatorsFollowTheirParameters) {
  const absl::StatusOr<Graph> graph = testing::BuildTinyLlama({});
  const absl::StatusOr<Graph> sharded = Sharded(*graph, GetParam(), {});
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  std::map<std::string, Layout> layouts;
  for (const State& s : sharded->states) layouts[s.name] = s.spec.layout;
  const Mesh mesh = MeshOf(GetParam().axes);
  int gradients = 0;
  for (const auto& [name, layout] : layouts) {
    if (name.rfind("grad.", 0) != 0) continue;
    ++gradients;
    for (int a = 0; a < mesh.num_axes(); ++a) {
      const Placement param = layouts.at(name.substr(5))[a];
      const std::string& axis = mesh.axes()[a].name;
      if (param.is_shard())
        EXPECT_EQ(layout[a], param) << name << " on " << axis;
      else
        EXPECT_FALSE(layout[a].is_shard()) << name << " on " << axis;
      if (axis == "dp" || axis == "cp") {
        EXPECT_EQ(layout[a], Partial()) << name << " on " << axis;
        EXPECT_EQ(layouts.at("loss_sum")[a], Partial());
      }
    }
  }
  EXPECT_EQ(gradients, 21);
}

INSTANTIATE_TEST_SUITE_P(All, ShardLayouts, ::testing::ValuesIn(kLayouts),
                         [](const auto& info) { return info.param.name; });

// Dropping what forward gathered costs one more all-gather for each pair of layers that share an input.
TEST(ShardPass, GathersAgainInBackwardWhenNotKept) {
  const LayoutCase layout = {"", {{"tp", 2}}, kSp, "", ""};
  const absl::StatusOr<Graph> graph = testing::BuildTinyLlama(Large(2));
  ShardOptions options;
  options.keep_gathered = false;
  const absl::StatusOr<Graph> sharded = Sharded(*graph, layout, Large(2), options);
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  EXPECT_EQ(Counts(*sharded, MeshOf(layout.axes), 1),
            "F tp all_gather 2; F tp reduce_scatter 2; I tp all_gather 2; I tp reduce_scatter 2; W tp all_gather 2");
}

// Bytes that one rank sends, in bytes of one activation [B, S, E].
TEST(ShardPass, SendsTheKnownBytes) {
  const double activation = 2.0 * 8 * 8192 * 4096;
  const absl::StatusOr<Graph> graph = testing::BuildTinyLlama(Large(2));
  const auto sent = [&](const LayoutCase& layout, Phase phase) {
    const absl::StatusOr<Graph> sharded = Sharded(*graph, layout, Large(2));
    double bytes = 0;
    for (const CollectiveTotal& t : CountCollectives(*sharded, MeshOf(layout.axes), 1))
      bytes += t.phase == phase ? t.bytes : 0;
    return bytes / activation;
  };
  EXPECT_DOUBLE_EQ(sent({"", {{"tp", 2}}, {}, "", ""}, Phase::kForward), 2.0);
  EXPECT_DOUBLE_EQ(sent({"", {{"tp", 4}}, {}, "", ""}, Phase::kInputGrad), 3.0);
  EXPECT_DOUBLE_EQ(sent({"", {{"tp", 2}}, kSp, "", ""}, Phase::kForward), 2.0);
}

TEST(ShardPass, IsFastAndDeterministic) {
  const LayoutCase layout = {"", {{"dp", 8}, {"tp", 2}}, kSp, "", ""};
  const TinyLlama config = Large(32);
  const absl::StatusOr<Graph> graph = testing::BuildTinyLlama(config);
  ASSERT_TRUE(graph.ok()) << graph.status();
  const auto start = std::chrono::steady_clock::now();
  const absl::StatusOr<Graph> first = Sharded(*graph, layout, config);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_LT(seconds.count(), 5.0);  // 0.2 s on an idle machine
  const absl::StatusOr<Graph> second = Sharded(*graph, layout, config);
  const Mesh mesh = MeshOf(layout.axes);
  EXPECT_EQ(Print(*first, &mesh), Print(*second, &mesh));
}

}  // namespace
}  // namespace strata
