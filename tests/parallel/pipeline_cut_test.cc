// Stages run one after the other, with what they send to each other, are the whole model: same losses, same gradients.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/graph/autograd.h"
#include "core/graph/builder.h"
#include "core/ops/elementwise.h"
#include "core/ops/linear.h"
#include "models/model.h"
#include "models/pass_flops.h"
#include "parallel/pipeline/balance.h"
#include "parallel/pipeline/costs.h"
#include "parallel/pipeline/cut.h"
#include "parallel/pipeline/parts.h"
#include "parallel/pipeline/stage_layout.h"
#include "tests/testing/interpreter.h"
#include "tests/testing/small_job.h"

namespace strata {
namespace {

using testing::Evaluate;
using ::testing::HasSubstr;
using testing::MaxAbs;
using testing::MaxAbsDiff;
using testing::Tensor;

using Bindings = std::map<std::string, Tensor>;

constexpr int kBlocks = 6;
constexpr ModelBlocks kModel{kBlocks, kBlockParts};

ModelConfig SmallModel(ModelArch arch, bool tied) {
  ModelConfig model = testing::SmallJobOf(arch, 1, 1, 1).model;
  model.layers = kBlocks;
  model.dim = 8, model.heads = 2, model.kv_heads = 2, model.ffn = 12;
  if (arch == ModelArch::kLlama) model.tied = tied;
  return model;
}

struct Whole {
  Graph forward, train;
};

absl::StatusOr<Graph> Plain(const Graph& graph) {
  return DecomposeOps(graph, [](const Op& op) { return op.name() == "head_loss"; });
}

absl::StatusOr<Whole> BuildWhole(const ModelConfig& config) {
  GraphBuilder g;
  LossSpec spec{.batch = 2, .dtype = DType::kF64, .chunks = 2, .dropout = config.dropout};
  if (config.arch == ModelArch::kGpt2) spec.packing = Packing::kIsolate;
  const ModelLoss model = ModelOf(config.arch).loss(g, config, spec);
  const StateId sum = g.Declare({"loss", Role::kBuffer, {DType::kF64, {}, {}}});
  g.Update(sum, Accumulate(g, g.Read(sum), model.loss));
  Whole whole;
  ASSIGN_OR_RETURN(whole.forward, std::move(g).Build());
  ASSIGN_OR_RETURN(Graph train, Differentiate(whole.forward, model.loss, model.loss_scale, model.params));
  ASSIGN_OR_RETURN(train, AccumulateGradients(train, model.states));
  ASSIGN_OR_RETURN(whole.train, Plain(train));
  whole.forward.outputs["loss"] = model.loss;
  return whole;
}

Bindings Bind(const Graph& g, const ModelConfig& config) {
  Bindings b;
  for (const State& s : g.states) {
    b[s.name] = s.role == Role::kParam ? Tensor::Random(DType::kF64, s.spec.shape, HashName(s.name), 0.3)
                                       : Tensor::Zeros(s.spec.dtype, s.spec.shape);
  }
  for (const auto& [name, v] : g.inputs) {
    const TensorSpec& spec = g.spec(v);
    b[name] = spec.dtype == DType::kI32 ? Tensor::RandomInts(spec.shape, 0, config.vocab, HashName(name))
                                        : Tensor::Random(DType::kF64, spec.shape, HashName(name));
    if (name == "weights" || name == "positions" || name == "document_starts") {
      for (int64_t i = 0; i < b[name].size(); ++i)
        b[name].set(i, name == "positions" ? i : name == "weights" ? i % 3 != 1 : i % config.seq / 3 * 3);
    }
  }
  return b;
}

// What stages give each other and keep.
struct Stage {
  StageGraph graph;
  Bindings bindings;
  Bindings outputs;

  absl::Status Run(const Bindings& received) {
    for (const auto& [name, v] : graph.graph.inputs) {
      const TensorSpec& spec = graph.graph.spec(v);
      if (!absl::StartsWith(name, "recv.")) continue;
      const auto it = received.find(name);
      bindings[name] = it == received.end() ? Tensor::Zeros(spec.dtype, spec.shape) : it->second;
    }
    ASSIGN_OR_RETURN(const auto values, Evaluate(graph.graph, bindings, {.scalars = {.seed = 5, .step = 1}}));
    for (const auto& [name, v] : graph.graph.outputs) outputs[name] = values[v.node][v.output];
    return absl::OkStatus();
  }
};

// Forward from stage to stage, then backward.
absl::StatusOr<std::vector<Stage>> RunStages(const Graph& forward, const StageLayout& layout,
                                             const Bindings& bindings) {
  ASSIGN_OR_RETURN(const std::vector<StageGraph> cut, CutStages(forward, layout));
  std::vector<Stage> stages;
  for (const StageGraph& s : cut) {
    ASSIGN_OR_RETURN(StageGraph stage, DifferentiateStage(s));
    ASSIGN_OR_RETURN(stage.graph, Plain(stage.graph));
    stages.push_back({std::move(stage), bindings, {}});
    for (const State& state : stages.back().graph.graph.states) {
      if (state.role == Role::kGrad) stages.back().bindings[state.name] = Tensor::Zeros(DType::kF64, state.spec.shape);
    }
  }
  Bindings wires;
  const auto pass_on = [&](size_t s, const char* kind, size_t to) {
    const auto it = stages[s].outputs.find(absl::StrCat("send.", kind, ".0.", s));
    if (it != stages[s].outputs.end()) wires[absl::StrCat("recv.", kind, ".0.", to)] = it->second;
  };
  for (size_t s = 0; s < stages.size(); ++s) {
    RETURN_IF_ERROR(stages[s].Run(wires));
    pass_on(s, "act", s + 1);
  }
  for (size_t s = stages.size(); s-- > 0;) {
    RETURN_IF_ERROR(stages[s].Run(wires));
    if (s > 0) pass_on(s, "grad", s - 1);
  }
  return stages;
}

struct CutCase {
  const char* name;
  ModelArch arch;
  bool tied;
  const char* layout;
  int stages;
};

class Cut : public ::testing::TestWithParam<CutCase> {};

TEST_P(Cut, EqualsTheWholeModel) {
  const CutCase& c = GetParam();
  const ModelConfig config = SmallModel(c.arch, c.tied);
  const absl::StatusOr<Whole> whole = BuildWhole(config);
  ASSERT_TRUE(whole.ok()) << whole.status();
  Bindings want = Bind(whole->train, config);
  const Bindings start = want;
  const auto ran = Evaluate(whole->train, want, {.scalars = {.seed = 5, .step = 1}});
  ASSERT_TRUE(ran.ok()) << ran.status();
  const absl::StatusOr<StageLayout> layout = ParseStageLayout(c.layout, kModel, c.stages);
  ASSERT_TRUE(layout.ok()) << layout.status();
  const absl::StatusOr<std::vector<Stage>> stages = RunStages(whole->forward, *layout, start);
  ASSERT_TRUE(stages.ok()) << stages.status();

  std::map<std::string, Tensor> gradients;  // of both owners together
  for (const Stage& s : *stages) {
    for (const State& state : s.graph.graph.states) {
      if (state.role != Role::kGrad) continue;
      const Tensor& part = s.bindings.at(state.name);
      Tensor& sum = gradients.try_emplace(state.name, Tensor::Zeros(DType::kF64, part.shape)).first->second;
      for (int64_t i = 0; i < part.size(); ++i) sum.set(i, sum.at(i) + part.at(i));
    }
  }
  EXPECT_EQ(stages->back().bindings.at("loss").at(0), want.at("loss").at(0));
  size_t compared = 0;
  for (const State& state : whole->train.states) {
    if (state.role != Role::kGrad) continue;
    ASSERT_TRUE(gradients.contains(state.name)) << state.name;
    EXPECT_GT(MaxAbs(want.at(state.name)), 0) << state.name;
    EXPECT_LE(MaxAbsDiff(gradients.at(state.name), want.at(state.name)),
              1e-12 * std::max(1.0, MaxAbs(want.at(state.name))))
        << state.name;
    ++compared;
  }
  EXPECT_EQ(compared, gradients.size());
}

// I of a stage: what is left when only the gradient of its input is wanted.
TEST_P(Cut, InputGradientsNeedNoWeightGradients) {
  const CutCase& c = GetParam();
  const absl::StatusOr<Whole> whole = BuildWhole(SmallModel(c.arch, c.tied));
  ASSERT_TRUE(whole.ok()) << whole.status();
  const absl::StatusOr<std::vector<StageGraph>> cut =
      CutStages(whole->forward, *ParseStageLayout(c.layout, kModel, c.stages));
  ASSERT_TRUE(cut.ok()) << cut.status();
  for (const StageGraph& s : *cut) {
    absl::StatusOr<StageGraph> stage = DifferentiateStage(s);
    ASSERT_TRUE(stage.ok()) << stage.status();
    const Graph& g = stage->graph;
    int input_products = 0, weight_products = 0;
    for (const Node& n : g.nodes) {
      for (Value v : n.inputs) {
        EXPECT_FALSE(g.nodes[v.node].phase > n.phase && n.phase != Phase::kStep) << n.op->name() << " in " << n.scope;
      }
      input_products += n.op->name() == "linear_dx" && n.phase == Phase::kInputGrad;
      weight_products += n.op->name() == "linear_dw" && n.phase == Phase::kWeightGrad;
      EXPECT_FALSE(n.op->name() == "linear_dw" && n.phase == Phase::kInputGrad);
      EXPECT_FALSE(n.op->name() == "linear_dx" && n.phase == Phase::kWeightGrad) << n.scope;
    }
    EXPECT_EQ(input_products, weight_products);
    Graph only_input = g;
    only_input.updates.clear();
    for (const Node& n : Prune(only_input).nodes) EXPECT_NE(n.phase, Phase::kWeightGrad) << n.op->name() << n.scope;
  }
}

TEST_P(Cut, EveryNodeIsInOneStage) {
  const CutCase& c = GetParam();
  const absl::StatusOr<Whole> whole = BuildWhole(SmallModel(c.arch, c.tied));
  ASSERT_TRUE(whole.ok()) << whole.status();
  const absl::StatusOr<std::vector<StageGraph>> cut =
      CutStages(whole->forward, *ParseStageLayout(c.layout, kModel, c.stages));
  ASSERT_TRUE(cut.ok()) << cut.status();
  std::multiset<uint64_t> keys;
  for (const StageGraph& s : *cut) {
    for (const Node& n : s.graph.nodes) {
      if (n.scope.rfind("recv.", 0) != 0) keys.insert(n.key);
    }
  }
  for (const Node& n : whole->forward.nodes) {
    const bool shared = AsInput(n) != nullptr || AsRead(n) != nullptr || n.op->name() == "document_positions";
    EXPECT_GE(keys.count(n.key), 1u) << n.op->name() << " in " << n.scope;
    EXPECT_TRUE(shared || keys.count(n.key) == 1) << n.op->name() << " in " << n.scope;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, Cut,
    ::testing::Values(CutCase{"llama2", ModelArch::kLlama, false, "E,0-2|3-5,H", 2},
                      CutCase{"llama_tied_uneven", ModelArch::kLlama, true, "E | 0-3 | 4 | 5,H", 4},
                      CutCase{"llama_tied_one_stage", ModelArch::kLlama, true, "E,0-5,H", 1},
                      CutCase{"llama_all_apart", ModelArch::kLlama, false, "E|0|1|2|3|4|5|H", 8},
                      CutCase{"llama_halves", ModelArch::kLlama, false, "E,0-2a|2b-5,H", 2},
                      CutCase{"llama_halves_apart", ModelArch::kLlama, true, "E|0a|0b|1-2a|2b-3|4a|4b-5a|5b|H", 9},
                      CutCase{"gpt2_dropout", ModelArch::kGpt2, true, "E,0|1-4|5,H", 3},
                      CutCase{"gpt2_dropout_halves", ModelArch::kGpt2, true, "E,0a|0b-4a|4b-5,H", 3},
                      CutCase{"bert_dropout", ModelArch::kBert, true, "E,0-1|2-5|H", 3},
                      CutCase{"bert_dropout_halves", ModelArch::kBert, true, "E,0-1|2a|2b-5a|5b,H", 4}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(StagesOfARank, AreMerged) {
  const absl::StatusOr<Whole> whole = BuildWhole(SmallModel(ModelArch::kLlama, true));
  ASSERT_TRUE(whole.ok()) << whole.status();
  const absl::StatusOr<std::vector<StageGraph>> cut =
      CutStages(whole->forward, *ParseStageLayout("E,0|1-4|5,H", kModel, 3));
  ASSERT_TRUE(cut.ok()) << cut.status();
  std::vector<StageGraph> mine;
  for (const int s : {0, 2}) mine.push_back(*DifferentiateStage((*cut)[s]));
  const absl::StatusOr<Graph> rank = MergeStages(mine);
  ASSERT_TRUE(rank.ok()) << rank.status();
  EXPECT_EQ(rank->nodes.size(), mine[0].graph.nodes.size() + mine[1].graph.nodes.size());
  std::map<std::string, int> states;
  for (const State& s : rank->states) ++states[s.name];
  EXPECT_EQ(states["embed.weight"], 1);
  EXPECT_EQ(states["grad.embed.weight"], 1);  // which both stages add to
  int additions = 0;
  for (const auto& [state, v] : rank->updates) additions += rank->states[state].name == "grad.embed.weight";
  EXPECT_EQ(additions, 2);
  EXPECT_EQ(states.count("blocks.1.wq"), 0u);
  for (const char* input : {"positions", "positions@0.2", "recv.act.0.2", "recv.grad.0.0"}) {
    ASSERT_TRUE(rank->inputs.contains(input)) << input;
    const Node& n = rank->nodes[rank->inputs.at(input).node];
    EXPECT_EQ(n.stage, std::string_view(input).back() == '2' ? 2 : 0) << input;
  }
  EXPECT_EQ(AsInput(rank->nodes[rank->inputs.at("positions@0.2").node])->input(), "positions");
}

TEST(CutErrors, RefusesWhatIsNotTheResidualStream) {
  GraphBuilder g;
  const Value x = g.Input("x", {DType::kF64, {2, 3, 4}, {}});
  const auto block = [&](int i, Value in, Value skip) {
    g.Push(absl::StrCat("blocks.", i), i);
    const StateId w = g.Declare({absl::StrCat("w.", i), Role::kParam, {DType::kF64, {4, 4}, {}}});
    Value y = Linear(g, in, g.Read(w));
    if (skip.valid()) y = Add(g, y, skip);
    y = Identity(g, y);
    g.Name("residual", y);
    g.Pop();
    return y;
  };
  const Value a = block(0, x, {}), b = block(1, a, {}), c = block(2, b, a);
  g.Output("loss", c);
  const absl::StatusOr<Graph> graph = std::move(g).Build();
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_TRUE(CutStages(*graph, {{{0, 1}, {1, 3}}}).ok());
  const absl::Status skips = CutStages(*graph, {{{0, 1}, {1, 2}, {2, 3}}}).status();
  EXPECT_EQ(skips.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(skips.message()), HasSubstr("blocks.2 is in stage 2 and reads a value of stage 0"));
  EXPECT_THAT(std::string(CutStages(*graph, {{{0, 2}, {2, 3}}}).status().message()), HasSubstr("residual stream"));
  EXPECT_EQ(PartsPerBlock(*graph), 1);  // its blocks name one residual each
  EXPECT_THAT(std::string(CutStages(*graph, {{{0, 1}, {1, 6}}, 2}).status().message()),
              HasSubstr("blocks in 2 parts of a model whose blocks have 1"));
}

TEST(Costs, ComeFromTheGraph) {
  const absl::StatusOr<Whole> whole = BuildWhole(SmallModel(ModelArch::kLlama, true));
  ASSERT_TRUE(whole.ok()) << whole.status();
  const ModelCosts costs = CostsOf(whole->train);
  ASSERT_EQ(costs.parts_per_block, 2);
  ASSERT_EQ(costs.parts.size(), static_cast<size_t>(2 * kBlocks));
  EXPECT_EQ(costs.embedding, 0);
  EXPECT_EQ(costs.parts[0], costs.parts[10]);
  EXPECT_EQ(costs.parts[1], costs.parts[11]);
  const ModelConfig c = SmallModel(ModelArch::kLlama, true);
  const double tokens = 2.0 * c.seq, e = c.dim;           // batch 2
  EXPECT_EQ(costs.head, 3 * 2.0 * tokens * e * c.vocab);  // logits, dx, dw: 2 flops
  EXPECT_EQ(costs.parts[1], 3 * 2.0 * tokens * 3 * e * c.ffn);
  const double scores = 2 * tokens * e * c.seq;  // 2 products, causal
  EXPECT_DOUBLE_EQ(costs.parts[0], 3 * 2.0 * tokens * 4 * e * e + scores / RelativeRate("attention") +
                                       2.5 * scores / RelativeRate("attention_bwd"));
  EXPECT_LT(RelativeRate("attention_bwd"), RelativeRate("attention"));
  EXPECT_EQ(RelativeRate("linear"), 1);
}

class PartsOfModels : public ::testing::TestWithParam<ModelArch> {};

// The scopes of a model's halves are not looked at, and so can judge.
TEST_P(PartsOfModels, HoldEveryNodeOfBothPasses) {
  const absl::StatusOr<Whole> whole = BuildWhole(SmallModel(GetParam(), true));
  ASSERT_TRUE(whole.ok()) << whole.status();
  const Graph& g = whole->train;
  EXPECT_EQ(PartsPerBlock(g), kBlockParts);
  EXPECT_EQ(PartsPerBlock(whole->forward), kBlockParts);
  const std::vector<ModelPart> parts = PartsOf(g);
  int forward[2] = {}, backward[2] = {};
  for (size_t i = 0; i < parts.size(); ++i) {
    const Node& n = g.nodes[i];
    if (parts[i].kind != ModelPart::kBlock) {
      EXPECT_TRUE(n.block < 0 || AsRead(n) != nullptr) << n.op->name() << " in " << n.scope;
      continue;
    }
    const std::string block = absl::StrCat("blocks.", n.block);
    EXPECT_EQ(parts[i].block, n.block);
    EXPECT_EQ(n.scope, block + (parts[i].part == 0 ? ".attn" : ".ffn")) << n.op->name();
    ++(n.phase == Phase::kForward ? forward : backward)[parts[i].part];
  }
  for (const int part : {0, 1}) {
    EXPECT_GT(forward[part], 4 * kBlocks);
    EXPECT_GT(backward[part], 4 * kBlocks);
  }
  // A graph whose blocks name one residual: the same nodes, one part a block, the same sums.
  const ModelCosts halves = CostsOf(g);
  Graph coarse = g;
  std::erase_if(coarse.named, [](const auto& named) { return named.first.ends_with(".attn.residual"); });
  const ModelCosts costs = CostsOf(coarse);
  EXPECT_EQ(costs.parts_per_block, 1);
  ASSERT_EQ(costs.parts.size(), static_cast<size_t>(kBlocks));
  for (int b = 0; b < kBlocks; ++b) {
    EXPECT_DOUBLE_EQ(costs.parts[b], halves.parts[2 * b] + halves.parts[2 * b + 1]);
    EXPECT_GT(halves.parts[2 * b], 0);
    EXPECT_GT(halves.parts[2 * b + 1], 0);
  }
  EXPECT_EQ(costs.head, halves.head);
  EXPECT_EQ(ToString(*BalancedLayout(costs, 2)).find('a'), std::string::npos);
  // One block that names another number of residuals: no block is cut.
  coarse = g;
  coarse.named.erase("blocks.1.attn.residual");
  EXPECT_EQ(PartsPerBlock(coarse), 1);
  EXPECT_DOUBLE_EQ(CostsOf(coarse).parts[1], costs.parts[1]);
}

INSTANTIATE_TEST_SUITE_P(All, PartsOfModels, ::testing::Values(ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert),
                         [](const auto& info) {
                           return std::string(kModelArchNames[static_cast<size_t>(info.param)]);
                         });

}  // namespace
}  // namespace strata
