// A fused job trains as the plain one. The fused ops' kernels here run their Decompose() by the interpreter.
#include "core/plan/fuse.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/graph/op.h"
#include "core/ops/squares.h"
#include "tests/testing/interpreter.h"
#include "tests/testing/small_job.h"

namespace strata::testing {
namespace {

constexpr const char* kFused[] = {
    "linear_add",         "linear_packed",         "linear_packed_dx", "linear_dx_add",      "linear_bias",
    "linear_bias_add",    "linear_packed_bias",    "linear_dw_acc",    "embedding_dw_acc",   "bias_grad_acc",
    "heads_packed",       "heads_unpacked",        "rope_packed",      "attention_packed",   "attention_packed_bwd",
    "attention_rope_bwd", "swiglu_packed",         "swiglu_packed_dx", "rms_norm_bwd",       "layer_norm_bwd",
    "layer_norm_bwd_sum", "softmax_nll",           "softmax_nll_grad", "linear_dx_gelu_acc", "rms_norm_bwd_acc",
    "layer_norm_bwd_acc", "layer_norm_bwd_sum_acc"};

absl::Status RunDecomposed(const KernelArgs& a) {
  GraphBuilder g;
  std::map<std::string, Tensor> bindings;
  std::vector<Value> in;
  for (const TensorRef& t : a.in) {
    const std::string name = std::to_string(in.size());
    in.push_back(g.Input(name, {t.dtype, t.shape, {}}));
    const std::byte* bytes = t.as<const std::byte>();
    bindings[name] = {t.dtype, t.shape, std::vector<std::byte>(bytes, bytes + t.bytes())};
  }
  ASSIGN_OR_RETURN(const std::vector<Value> out, a.op.Decompose(g, in));
  ASSIGN_OR_RETURN(const Graph graph, std::move(g).Build());
  ASSIGN_OR_RETURN(const auto values, Evaluate(graph, bindings, {.overwrite = a.overwrite, .scalars = *a.scalars}));
  for (size_t i = 0; i < out.size(); ++i) {
    const Tensor& t = values[out[i].node][out[i].output];
    std::copy(t.data.begin(), t.data.end(), a.out[i].as<std::byte>());
  }
  return absl::OkStatus();
}

// Without the gradient of the embedding where tp cuts the vocabulary: its decomposition does not know the shard's origin.
KernelTable WithFusedOps(int64_t tp) {
  KernelTable kernels = CpuKernels();
  for (const std::string op : kFused) {
    if (tp == 1 || op != "embedding_dw_acc") kernels.Add(op, DType::kF64, {RunDecomposed});
  }
  return kernels;
}

using Counts = std::map<std::string, int>;

// Where `fused_kernels` are empty, WithFusedOps().
void ExpectEqualRuns(
    const JobConfig& config, const Counts& expected, const std::function<void(const Job&)>& inspect = [](const Job&) {},
    KernelTable fused_kernels = {}) {
  if (!fused_kernels.Has("linear")) fused_kernels = WithFusedOps(config.parallel.tp);
  std::vector<int> steps(3);
  std::iota(steps.begin(), steps.end(), 1);
  const TableRows rows(config.model.vocab, 3);
  Counts counts;
  const auto plain = RunJob(config, steps, rows, INFINITY, CpuKernels());
  const auto fused = RunJob(config, steps, rows, INFINITY, fused_kernels, [&](const Job& job) {
    inspect(job);
    for (const ProgramSpec& p : job.programs[0]) {
      for (const Node& n : p.graph.nodes) ++counts[(p.name == "eval" ? "eval " : "") + std::string(n.op->name())];
    }
  });
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_TRUE(fused.ok()) << fused.status();
  for (const auto& [op, n] : expected) EXPECT_EQ(counts[op], n) << op;
  for (size_t i = 0; i < plain->steps.size(); ++i) {
    EXPECT_NEAR(fused->steps[i].loss, plain->steps[i].loss, 1e-12);
    EXPECT_NEAR(fused->steps[i].grad_norm, plain->steps[i].grad_norm, 1e-12);
  }
  EXPECT_NEAR(fused->eval_nats, plain->eval_nats, 1e-10);
  for (const auto& [name, values] : plain->parameters) {
    const std::vector<double>& other = fused->parameters.at(name);
    for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(other[i], values[i], 1e-12) << name << " " << i;
  }
}

// Two layers, one chunk of the loss.
const Counts kLlama = {{"attention_packed", 2},
                       {"attention_packed_bwd", 0},
                       {"attention_rope_bwd", 2},
                       {"linear_rope", 2},
                       {"rope_packed", 0},
                       {"rope", 0},
                       {"linear_packed", 0},
                       {"linear_packed_dx", 4},
                       {"linear_swiglu", 2},
                       {"swiglu_packed", 0},
                       {"linear_dx_swiglu", 2},
                       {"swiglu_packed_dx", 0},
                       {"linear_dw", 0},
                       {"rms_norm_bwd_acc", 5},
                       {"rms_norm_bwd", 0},
                       {"rms_norm_dx", 0},
                       {"accumulate", 1},
                       {"softmax_nll_grad", 1},
                       {"vocab_max", 0},
                       {"embedding_dw_acc", 1},
                       {"linear_dw_acc", 9},
                       {"eval linear_rope", 2},
                       {"eval attention_packed", 2},
                       {"eval linear_swiglu", 2}};

JobConfig Recomputing(JobConfig config, Recompute level) {
  config.memory.recompute = level;
  return config;
}

TEST(FuseOps, LlamaOnOneRank) {
  Counts expected = kLlama;
  expected["linear_add"] = 4;
  expected["add"] = 3;  // of the squares of four buckets
  JobConfig config = SmallJob(1, 1, 1);
  ExpectEqualRuns(config, expected);
  config = SmallJob(1, 1, 4);
  ExpectEqualRuns(config, expected);
}

TEST(FuseOps, LlamaWithATiedHeadAddsBothGradientsInPlace) {
  JobConfig config = SmallJob(1, 1, 2);
  config.model.tied = true;
  ExpectEqualRuns(config, kLlama);
}

TEST(FuseOps, DocumentsOfARowArePackedToo) {  // rope and attention have other positions
  for (const int64_t dp : {1, 2}) {
    JobConfig config = SmallJob(dp, 1, 2);
    config.data.packing = Packing::kIsolate;
    ExpectEqualRuns(config, kLlama);
  }
  JobConfig gpt2 = SmallJobOf(ModelArch::kGpt2, 1, 1, 2);
  gpt2.model.dim = 64;
  gpt2.data.packing = Packing::kIsolate;
  ExpectEqualRuns(gpt2, {{"attention_packed", 2}, {"attention_packed_bwd", 2}});
}

TEST(FuseOps, DataParallelFusesAll) { ExpectEqualRuns(SmallJob(2, 1, 2), kLlama); }

TEST(FuseOps, Zero) {
  JobConfig config = SmallJob(2, 1, 2);
  config.parallel.zero.stage = 1;
  ExpectEqualRuns(config, kLlama);
  // Gradients are parts of a buffer of the micro-batch, not accumulators; those of packed weights are one part.
  Counts parts = kLlama;
  parts["linear_dw_acc"] = parts["embedding_dw_acc"] = parts["rms_norm_bwd_acc"] = 0;
  parts["rms_norm_bwd"] = 5;
  parts["linear_dw"] = 9;
  parts["embedding_dw"] = 1;
  parts["pack"] = 5;        // embedding, two blocks, the head's weight and its norm
  parts["accumulate"] = 6;  // a bucket each, and the loss
  for (const int64_t stage : {2, 3}) {
    config.parallel.zero.stage = stage;
    ExpectEqualRuns(config, parts);
  }
}

TEST(FuseOps, ZeroWithATiedHeadAddsBothGradientsInPlace) {
  JobConfig config = SmallJob(2, 1, 2);
  config.model.tied = true;
  for (const int64_t stage : {2, 3}) {
    config.parallel.zero.stage = stage;
    ExpectEqualRuns(config, {{"linear_dw", 9}, {"embedding_dw", 0}, {"embedding_dw_acc", 1}, {"attention_packed", 2}});
  }
}

TEST(FuseOps, ZeroWithSecondaryShards) {
  JobConfig config = SmallJob(4, 1, 2);
  config.parallel.zero = {.stage = 3, .inner = 2, .secondary = true};
  ExpectEqualRuns(config, {{"attention_packed", 2}, {"linear_swiglu", 2}, {"linear_dx_swiglu", 2}, {"linear_dw", 9}});
}

TEST(FuseOps, ZeroAndTensorParallel) {
  JobConfig config = SmallJob(2, 2, 2);
  config.parallel.sequence_parallel = true;
  for (const int64_t stage : {2, 3}) {
    config.parallel.zero.stage = stage;
    ExpectEqualRuns(config, {{"attention_packed", 2}, {"linear_swiglu", 2}, {"linear_dx_swiglu", 2}, {"linear_dw", 9}});
  }
}

TEST(FuseOps, ZeroWithRecomputedBlocks) {
  for (const int64_t stage : {2, 3}) {
    JobConfig config = Recomputing(SmallJob(2, 1, 2), Recompute::kBlock);
    config.parallel.zero.stage = stage;
    ExpectEqualRuns(
        config,
        {{"attention_packed", 4}, {"linear_swiglu", 4}, {"linear_dx_swiglu", 2}, {"linear_dw", 9}, {"rope", 0}});
  }
}

// Schedules that run weight gradients later still can, and what the others wait for is not among them.
TEST(FuseOps, WeightGradientsOfPackedProductsAreWork) {
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2}) {
    for (const int64_t stage : {0, 2}) {
      for (const Recompute level : {Recompute::kNone, Recompute::kSelective, Recompute::kBlock}) {
        SCOPED_TRACE(absl::StrFormat("arch %d, zero %d, recompute %d", arch, stage, level));
        JobConfig config = Recomputing(SmallJobOf(arch, stage > 0 ? 2 : 1, 1, 4), level);
        config.batch = {.tokens = 64, .micro = stage > 0 ? 1 : 2, .accumulate = 4};
        config.model.dim = arch == ModelArch::kGpt2 ? 64 : config.model.dim;  // so that biases are adjacent
        config.parallel.pp = 2;
        config.parallel.schedule = "zb-h1";
        config.parallel.zero.stage = stage;
        int products = 0;
        const auto look = [&](const Job& job) {
          for (const Node& n : job.programs[0][0].graph.nodes) {
            const std::string_view op = n.op->name();
            if (op.starts_with("linear_dx") || op == "linear_packed_dx") {
              EXPECT_EQ(n.phase, Phase::kInputGrad) << n.scope;
            }
            if (op != "linear_dw" && op != "linear_dw_acc") continue;
            EXPECT_EQ(n.phase, Phase::kWeightGrad) << n.scope;
            ++products;
          }
        };
        const bool gated = arch == ModelArch::kLlama;
        const int times = level == Recompute::kBlock ? 2 : 1;
        ExpectEqualRuns(config,
                        {{"attention_packed", times},
                         {gated ? "linear_swiglu" : "linear_bias_gelu", times},
                         {gated        ? "linear_dx_swiglu"
                          : stage == 0 ? "linear_dx_gelu_acc"
                                       : "linear_dx_gelu",
                          1}},
                        look);
        EXPECT_EQ(products, 4);
      }
    }
  }
}

TEST(FuseOps, TensorParallelKeepsWhatHasACollectiveInBetween) {
  Counts expected = kLlama;
  expected["linear_add"] = 0;
  expected["softmax_nll_grad"] = 0;
  expected["embedding_dw_acc"] = 0;
  expected["accumulate"] = 2;  // the embedding
  expected.erase("vocab_max");
  ExpectEqualRuns(SmallJob(1, 2, 1), expected);
}

TEST(FuseOps, HeadsSharedByRanksAreNotPacked) {  // 2 kv heads, tp 4: k and v are cut otherwise than q
  ExpectEqualRuns(SmallJob(2, 4, 1), {{"attention_packed", 0}, {"attention", 2}});
}

TEST(FuseOps, HeadsWithNormsArePackedForTheAttention) {
  Counts expected = {{"attention_packed", 2}, {"attention_rope_bwd", 2}, {"heads_packed", 2}, {"heads_unpacked", 2},
                     {"attention", 0},        {"linear_swiglu", 2},      {"rope", 4},         {"eval heads_packed", 2}};
  for (const int64_t stage : {0, 3}) {
    JobConfig config = SmallJobOf(ModelArch::kQwen3, stage > 0 ? 2 : 1, 1, 2);
    config.model.kv_heads = 1;
    config.parallel.zero.stage = stage;
    ExpectEqualRuns(config, expected);
  }
  Counts again = expected;
  again["attention_packed"] = again["heads_packed"] = 4;
  again.erase("rope");
  again["linear_swiglu"] = 4;
  ExpectEqualRuns(Recomputing(SmallJobOf(ModelArch::kQwen3, 1, 1, 2), Recompute::kBlock), again);
  ExpectEqualRuns(Recomputing(SmallJobOf(ModelArch::kQwen3, 1, 1, 2), Recompute::kSelective), expected);
}

TEST(FuseOps, ModelsWithBiases) {
  JobConfig gpt2 = SmallJobOf(ModelArch::kGpt2, 1, 1, 2), bert = SmallJobOf(ModelArch::kBert, 1, 1, 1);
  gpt2.model.dim = bert.model.dim = 64;  // buckets align tensors to 64 elements: shorter biases are not adjacent
  Counts expected = {{"layer_norm_bwd_acc", 5},
                     {"softmax_nll_grad", 1},
                     {"attention_packed", 2},
                     {"linear_packed_bias", 2},
                     {"attention_packed_bwd", 2},
                     {"linear_dw", 0},
                     {"bias_grad_acc", 6},
                     {"bias_grad", 0},
                     {"slice", 0}};
  expected["linear_bias_gelu"] = expected["linear_dx_gelu_acc"] = expected["eval linear_bias_gelu"] = 2;
  expected["gelu"] = expected["gelu_dx"] = expected["eval gelu"] = expected["linear_dx_gelu"] = 0;
  expected["linear_bias"] = 4;  // dropout lies before the residual adds
  ExpectEqualRuns(gpt2, expected);
  gpt2.model.dropout = 0;
  expected["linear_bias"] = 0;
  expected["linear_bias_add"] = 4;
  expected["layer_norm_bwd_acc"] = 1;  // of the embedding, which has no bias
  expected["layer_norm_bwd_sum_acc"] = 4;
  expected["bias_grad_acc"] = 2;  // of q | k | v
  ExpectEqualRuns(gpt2, expected);
  Counts again = expected;
  again["gelu"] = 2;  // of what the product made
  ExpectEqualRuns(Recomputing(gpt2, Recompute::kSelective), again);
  again = expected;
  again["linear_bias_gelu"] = again["attention_packed"] = again["linear_packed_bias"] = 4;
  again.erase("linear_bias_add");
  ExpectEqualRuns(Recomputing(gpt2, Recompute::kBlock), again);
  for (const int64_t stage : {0, 1, 3}) {
    bert.parallel.dp = stage > 0 ? 2 : 1;
    bert.batch.micro = 8 / bert.parallel.dp;
    bert.parallel.zero.stage = stage;
    ExpectEqualRuns(bert, {{"attention_packed", 2},
                           {"attention_packed_bwd", 2},
                           {"linear_packed_dx", 0},
                           {"linear_dx_add", 4},  // into q, k, v and into the feed-forward
                           {"linear_packed_bias", 2},
                           {stage == 3 ? "layer_norm_bwd" : "layer_norm_bwd_acc", 5},
                           {"layer_norm_bwd_sum", 1},  // of the embeddings, to which that of the type is added
                           {"linear_bias_gelu", 3},    // one in the head
                           {stage == 3 ? "linear_dx_gelu" : "linear_dx_gelu_acc",
                            2},  // the norm of the head makes the gradient of its gelu
                           {"gelu_dx", 1},
                           {"eval attention_packed", 2}});
  }
  bert = SmallJobOf(ModelArch::kBert, 1, 2, 1);
  bert.model.dim = 128;
  ExpectEqualRuns(bert, {{"layer_norm_dx", 0},
                         {"attention_packed", 2},
                         {"linear_packed_dx", 2},
                         {"linear_bias_gelu", 3},
                         {"linear_dx_gelu_acc", 2}});
}

// Clones are fused as their originals are, so that their bits are the same.
TEST(FuseOps, RecomputedBlocksAreFusedTwice) {
  Counts expected = {{"attention_packed", 4},
                     {"attention_rope_bwd", 2},
                     {"linear_rope", 4},
                     {"rope_packed", 0},
                     {"linear_packed", 0},
                     {"linear_packed_dx", 4},
                     {"linear_swiglu", 4},
                     {"linear_dx_swiglu", 2},
                     {"rms_norm_bwd_acc", 5},
                     {"swiglu", 0},
                     {"rope", 0},
                     {"linear_dw", 0},
                     {"linear_dw_acc", 9},
                     {"linear_add", 6}};
  ExpectEqualRuns(Recomputing(SmallJob(1, 1, 2), Recompute::kBlock), expected);
}

TEST(FuseOps, SelectiveRecomputeFusesWhatIsKeptAsWithout) {
  Counts expected = kLlama;
  expected["swiglu_packed"] = 2;  // again, of what the products made
  expected["rms_norm"] = 2 * 2 + 1 + 2 * 2;
  ExpectEqualRuns(Recomputing(SmallJob(1, 1, 2), Recompute::kSelective), expected);
}

// Op, place and operands of all that a job's ranks launch for the blocks of the model.
std::set<std::string> LaunchesOf(const JobConfig& config) {
  std::set<std::string> launches;
  const auto job = CompileTraining(config, WithFusedOps(config.parallel.tp));
  EXPECT_TRUE(job.ok()) << job.status();
  if (!job.ok()) return launches;
  const Graph& graph = job->programs[0][0].graph;
  for (const Node& n : graph.nodes) {
    if (n.block < 0 || n.op->IsView() || n.op->name() == "read") continue;
    std::string launch = absl::StrFormat("%s %s", n.op->name(), n.scope);
    for (Value v : n.inputs) launch += " " + ToString(graph.spec(v).shape);
    launches.insert(std::move(launch));
  }
  return launches;
}

// So that bits are those without: on a GPU another kernel, or another shape of a product, rounds otherwise.
TEST(FuseOps, RecomputeLaunchesNothingElse) {
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    for (const auto& [dp, tp, zero] :
         std::vector<std::array<int64_t, 3>>{{1, 1, 0}, {1, 2, 0}, {2, 1, 1}, {2, 1, 2}, {2, 1, 3}}) {
      JobConfig config = SmallJobOf(arch, dp, tp, 2);
      config.model.dim = 64;  // so that biases are adjacent
      config.parallel.zero.stage = zero;
      const std::set<std::string> without = LaunchesOf(config);
      for (const Recompute level : {Recompute::kSelective, Recompute::kBlock}) {
        for (const std::string& launch : LaunchesOf(Recomputing(config, level))) {
          // Of what linear_swiglu and linear_bias_gelu made, with its bits (core/ops/fused.h).
          const bool again =
              level == Recompute::kSelective && (launch.starts_with("swiglu_packed ") || launch.starts_with("gelu "));
          EXPECT_TRUE(again || without.contains(launch)) << kModelArchNames[static_cast<int>(arch)] << " dp " << dp
                                                         << " tp " << tp << " zero " << zero << ": " << launch;
        }
      }
    }
  }
}

TEST(FuseOps, SequenceParallelFusesProductsOfGatheredInputs) {
  for (const bool keep : {false, true}) {
    JobConfig config = SmallJob(1, 2, 2);
    config.parallel.sequence_parallel = true;
    config.parallel.keep_gathered = keep;
    ExpectEqualRuns(config, {{"attention_packed", 2},
                             {"linear_packed_dx", 4},
                             {"linear_swiglu", 2},
                             {"linear_dx_swiglu", 2},
                             {"linear_dw", 0}});
  }
}

// A gather of rows and the product behind it, in groups: also products with several results, and with positions that rows have
// for themselves.
TEST(FuseOps, ProductsOfGatheredRowsAreSplit) {
  JobConfig gpt2 = SmallJobOf(ModelArch::kGpt2, 1, 2, 2);
  gpt2.parallel.sequence_parallel = true;
  gpt2.parallel.overlap = Overlap::kOn;
  gpt2.model.dim = 128;
  ExpectEqualRuns(gpt2, {{"linear_packed_bias", 2}, {"linear_bias_gelu", 2}, {"linear_dx_gelu", 2}});
  for (const Packing packing : {Packing::kConcat, Packing::kIsolate}) {
    JobConfig config = SmallJob(1, 2, 2);
    config.parallel.sequence_parallel = true;
    config.parallel.overlap = Overlap::kOn;
    config.data.packing = packing;
    ExpectEqualRuns(config, {{"linear_rope", 2}, {"linear_swiglu", 2}, {"linear_dx_swiglu", 2}});
    const KernelTable kernels = WithFusedOps(2);
    for (const int64_t groups : {1, 2, 4}) {
      config.parallel.overlap_groups = groups;
      const auto job = CompileTraining(config, kernels);
      ASSERT_TRUE(job.ok()) << job.status();
      const auto plan = PlanRank(*job, 0, kernels);
      ASSERT_TRUE(plan.ok()) << plan.status();
      Counts launches;
      for (const Segment& segment : plan->programs[0].segments) {
        for (const Step& step : segment.steps) {
          if (step.kind == Step::kLaunch) ++launches[std::string(step.op->name())];
        }
      }
      for (const char* op : {"linear_rope", "linear_swiglu", "linear_dx_swiglu"}) {
        EXPECT_EQ(launches[op], 2 * groups) << op;
      }
    }
  }
}

// Gradients of a rank of one micro-batch are as the norm reads them when their products have written them.
KernelTable WithSquares(int64_t tp) {
  KernelTable kernels = WithFusedOps(tp);
  for (const char* op : {"linear_dw_acc_squares", "embedding_dw_acc_squares"}) {
    kernels.Add(op, DType::kF64, {RunDecomposed});
  }
  return kernels;
}
void ExpectEqualRunsWithSquares(
    const JobConfig& config, const Counts& expected,
    const std::function<void(const Job&)>& inspect = [](const Job&) {}) {
  ExpectEqualRuns(config, expected, inspect, WithSquares(config.parallel.tp));
}

// Every gradient is counted by what writes it or by the one total, and none by both: elements of rank 0.
void ExpectAllCounted(const Job& job) {
  const Graph& g = job.programs[0][0].graph;
  std::map<std::string, int64_t> counted;
  int64_t writers = 0, ranges = 0, gradients = 0;
  for (const Node& n : g.nodes) {
    if (n.op->name().ends_with("_squares") && n.outputs.size() > 1) {
      for (size_t i = 0; i + 1 < n.outputs.size(); ++i) writers += n.outputs[i].shape.elements();
    }
    if (n.op->name() != "total_squares") continue;
    for (size_t i = 0; i + 1 < n.inputs.size(); ++i) {
      for (const FlatRange& r : TotalSquaresRanges(*n.op, i)) ranges += r.count;
    }
  }
  for (const State& s : g.states) {
    if (s.role == Role::kGrad && s.storage >= 0) gradients += s.spec.shape.elements();
  }
  EXPECT_GT(writers, 0);
  EXPECT_EQ(writers + ranges, gradients);
}

TEST(FuseSquares, ProductsSumTheSquaresOfWhatTheyWrite) {
  Counts llama = kLlama;
  llama["linear_dw_acc"] = llama["embedding_dw_acc"] = llama["sum_squares"] = llama["add"] = 0;
  llama["linear_dw_acc_squares"] = 9;
  llama["embedding_dw_acc_squares"] = 1;
  llama["total_squares"] = 1;
  ExpectEqualRunsWithSquares(SmallJob(1, 1, 1), llama, ExpectAllCounted);
  ExpectEqualRunsWithSquares(Recomputing(SmallJob(1, 1, 1), Recompute::kBlock),
                             {{"linear_dw_acc_squares", 9}, {"sum_squares", 0}}, ExpectAllCounted);
  for (const ModelArch arch : {ModelArch::kGpt2, ModelArch::kBert}) {  // to tied embeddings another gradient is added
    JobConfig config = SmallJobOf(arch, 1, 1, 1);
    config.model.dim = 64;
    ExpectEqualRunsWithSquares(config,
                               {{"linear_dw_acc_squares", arch == ModelArch::kBert ? 9 : 8},
                                {"linear_dw_acc", 1},
                                {"total_squares", 1},
                                {"sum_squares", 0}},
                               ExpectAllCounted);
  }
}

TEST(FuseSquares, TensorAndPipelineParallel) {
  // Shards are summed over the ranks, whole tensors are not: one total each.
  ExpectEqualRunsWithSquares(SmallJob(1, 2, 1), {{"linear_dw_acc_squares", 9}, {"total_squares", 1}});
  ExpectEqualRunsWithSquares(SmallJob(1, 4, 1), {{"total_squares", 1}});  // k and v are on two ranks each
  JobConfig config = SmallJob(1, 1, 1);
  config.parallel.pp = 2;
  ExpectEqualRunsWithSquares(config, {{"linear_dw_acc_squares", 4}, {"total_squares", 1}, {"sum_squares", 0}});
}

TEST(FuseSquares, NotOfWhatIsReducedOrAddedUp) {
  const Counts none = {{"linear_dw_acc_squares", 0}, {"embedding_dw_acc_squares", 0}, {"total_squares", 0}};
  ExpectEqualRunsWithSquares(SmallJob(1, 1, 2), none);
  for (const int64_t stage : {0, 1, 2, 3}) {
    JobConfig config = SmallJob(2, 1, 1);
    config.parallel.zero.stage = stage;
    ExpectEqualRunsWithSquares(config, none);
  }
}

TEST(FuseSquares, StepsThatAreNotFiniteAreHeldBack) {
  class Spoiled final : public RowSource {
   public:
    absl::Status Row(int64_t index, const RowSpans& row) const override {
      absl::Status status = rows_.Row(index, row);
      if (index == 10) row.weights[2] = std::numeric_limits<float>::quiet_NaN();  // of step 2
      return status;
    }

   private:
    const TableRows rows_{32, 3};
  };
  const int all[] = {1, 2, 3}, without[] = {1, 3};
  const JobConfig config = SmallJob(1, 1, 1);
  const auto skipped = RunJob(config, all, Spoiled(), INFINITY, WithSquares(1));
  const auto want = RunJob(config, without, Spoiled(), INFINITY, WithSquares(1));
  ASSERT_TRUE(skipped.ok() && want.ok()) << skipped.status() << want.status();
  EXPECT_TRUE(skipped->steps[1].skipped);
  EXPECT_EQ(skipped->parameters, want->parameters);
}

}  // namespace
}  // namespace strata::testing
