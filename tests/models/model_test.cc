#include "models/model.h"

#include <gtest/gtest.h>

#include "core/graph/autograd.h"
#include "core/graph/op.h"

namespace strata {
namespace {

ModelConfig Small(ModelArch arch) {
  ModelConfig c{.vocab = 30, .layers = 3, .dim = 12, .heads = 3, .kv_heads = 3, .ffn = 20, .seq = 8};
  c.arch = arch;
  if (c.traits().qk_norm) c.kv_heads = 1, c.head_width = 6;
  if (!c.traits().rope) c.positions = 11;
  return c;
}

absl::StatusOr<Graph> LossGraph(const ModelConfig& c, double dropout) {
  GraphBuilder g;
  const ModelLoss model = ModelOf(c.arch).loss(g, c, {.batch = 2, .dtype = DType::kF32, .dropout = dropout});
  g.Output("loss", model.loss);
  absl::StatusOr<Graph> graph = std::move(g).Build();
  if (!graph.ok()) return graph;
  return Differentiate(*graph, model.loss, model.loss_scale, model.params);
}

int Count(const Graph& graph, std::string_view op) {
  int n = 0;
  for (const Node& node : graph.nodes) n += node.op->name() == op ? 1 : 0;
  return n;
}

class EveryModel : public ::testing::TestWithParam<ModelArch> {};
INSTANTIATE_TEST_SUITE_P(Archs, EveryModel,
                         ::testing::Values(ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert, ModelArch::kQwen2,
                                           ModelArch::kQwen3),
                         [](const auto& info) { return std::string(kModelArchNames[static_cast<int>(info.param)]); });

TEST_P(EveryModel, HasTheParametersOfItsFormula) {
  const ModelConfig c = Small(GetParam());
  const absl::StatusOr<Graph> graph = LossGraph(c, 0);
  ASSERT_TRUE(graph.ok()) << graph.status();
  int64_t elements = 0;
  for (const State& s : graph->states) elements += s.spec.shape.elements();
  EXPECT_EQ(c.num_parameters(), elements);
  EXPECT_EQ(graph->outputs.size(), graph->states.size() + 1);  // the loss, and every parameter's gradient
}

// Forward FLOPs of all products with weights, from the graph.
TEST_P(EveryModel, CountsTheWeightsThatItMultipliesWith) {
  const ModelConfig c = Small(GetParam());
  absl::StatusOr<Graph> graph = LossGraph(c, 0);
  ASSERT_TRUE(graph.ok()) << graph.status();
  graph = DecomposeOps(*graph, [](const Op& op) { return op.name() == "head_loss"; });
  ASSERT_TRUE(graph.ok()) << graph.status();
  int64_t weights = 0;
  for (const Node& n : graph->nodes) {
    if (n.op->name() == "linear") weights += graph->spec(n.inputs[1]).shape.elements();
  }
  EXPECT_EQ(ModelOf(c.arch).size(c).matmul_weights, weights);
}

TEST_P(EveryModel, InitializesEveryParameter) {
  const ModelConfig c = Small(GetParam());
  const absl::StatusOr<Graph> graph = LossGraph(c, 0);
  ASSERT_TRUE(graph.ok()) << graph.status();
  for (const State& s : graph->states) {
    const InitSpec init = ModelOf(c.arch).init(c, s.name);
    if (s.name.ends_with("norm.weight")) {
      EXPECT_EQ(init.mean, 1) << s.name;
    } else {
      EXPECT_EQ(init.mean, 0) << s.name;
      EXPECT_EQ(init.std > 0, !s.name.ends_with(".bias")) << s.name;
    }
  }
}

TEST(Models, SizesOfPublishedModels) {
  ModelConfig gpt2{.arch = ModelArch::kGpt2};
  gpt2.vocab = 50257, gpt2.layers = 12, gpt2.dim = 768, gpt2.heads = 12, gpt2.ffn = 3072, gpt2.seq = 1024;
  EXPECT_EQ(gpt2.num_parameters(), 124'439'808);  // GPT-2, "124M"
  ModelConfig bert = gpt2;
  bert.arch = ModelArch::kBert;
  bert.vocab = 30522, bert.seq = 512;
  EXPECT_EQ(bert.num_parameters(), 109'514'298);  // BERT-base, uncased, with its masked language model; no pooler
}

TEST(Models, SizesOfPublishedQwens) {
  ModelConfig qwen2{.arch = ModelArch::kQwen2, .vocab = 151936, .layers = 24, .dim = 896, .heads = 14, .kv_heads = 2};
  qwen2.ffn = 4864, qwen2.tied = true;
  EXPECT_EQ(qwen2.num_parameters(), 494'032'768);  // Qwen2-0.5B
  ModelConfig qwen3{.arch = ModelArch::kQwen3, .vocab = 151936, .layers = 28, .dim = 1024, .heads = 16, .kv_heads = 8};
  qwen3.head_width = 128, qwen3.ffn = 3072, qwen3.tied = true;
  EXPECT_EQ(qwen3.num_parameters(), 596'049'920);  // Qwen3-0.6B
}

TEST(Models, DropoutIsOnTheEmbeddingAndEveryBranchInTrainingOnly) {
  for (ModelArch arch : {ModelArch::kGpt2, ModelArch::kBert}) {
    const ModelConfig c = Small(arch);
    const absl::StatusOr<Graph> train = LossGraph(c, 0.1), eval = LossGraph(c, 0);
    ASSERT_TRUE(train.ok() && eval.ok()) << train.status() << eval.status();
    EXPECT_EQ(Count(*train, "dropout"), 2 * (1 + 2 * c.layers));  // forward and backward
    EXPECT_TRUE(train->inputs.contains("samples"));
    EXPECT_EQ(Count(*eval, "dropout"), 0);
    EXPECT_FALSE(eval->inputs.contains("samples"));
  }
}

TEST(Models, BertGeneratesNoText) { EXPECT_EQ(ModelOf(ModelArch::kBert).logits, nullptr); }

TEST(Models, FlopsOfFullAttentionAreTwiceThoseOfCausal) {
  ModelConfig c = Small(ModelArch::kGpt2);
  const double gpt2 = FlopsPerToken(c) - 6.0 * static_cast<double>(ModelOf(c.arch).size(c).matmul_weights);
  EXPECT_EQ(gpt2, 6.0 * 3 * 12 * 8);
  c.arch = ModelArch::kBert;
  EXPECT_EQ(FlopsPerToken(c) - 6.0 * static_cast<double>(ModelOf(c.arch).size(c).matmul_weights), 2 * gpt2);
}

}  // namespace
}  // namespace strata
