// Golden numbers of collectives in one train step: 2 layers, one micro-batch, one loss chunk. Per layer, tensor parallelism
// takes 2 all-reduces forward and 2 backward (Megatron-LM), data parallelism one a bucket; sharding-notes' table.

#include <gtest/gtest.h>

#include "tests/testing/small_job.h"

namespace strata {
namespace {

using Calls = std::map<std::string, int64_t>;

Calls CallsOf(int64_t dp, int64_t tp, int64_t accumulate) {
  const absl::StatusOr<testing::JobRun> run = testing::RunJob(testing::SmallJob(dp, tp, accumulate), 1);
  EXPECT_TRUE(run.ok()) << run.status();
  return run.ok() ? run->calls : Calls{};
}

constexpr int kLayers = 2, kBuckets = kLayers + 2;  // embedding, head
// Tensor-parallel calls of a micro-batch: embedding 1; a layer 2 + 2; vocabulary-parallel loss 3; head backward 1.
constexpr int kTensor = 1 + 4 * kLayers + 3 + 1;

TEST(CollectiveCounts, OneRankHasNone) { EXPECT_EQ(CallsOf(1, 1, 2), Calls{}); }

TEST(CollectiveCounts, DataParallelIsOneAllReduceABucketAndTheLoss) {
  const Calls want = {{"dp all-reduce", kBuckets + 1}, {"loader all-reduce", 1}};
  EXPECT_EQ(CallsOf(2, 1, 1), want);
  EXPECT_EQ(CallsOf(4, 1, 1), want);
  EXPECT_EQ(CallsOf(4, 1, 2), want);  // accumulation adds none
}

TEST(CollectiveCounts, TensorParallel) {
  EXPECT_EQ(CallsOf(1, 2, 1), (Calls{{"tp all-reduce", kTensor + 1}}));  // and the gradient norm
  EXPECT_EQ(CallsOf(1, 2, 4), (Calls{{"tp all-reduce", 4 * kTensor + 1}}));
}

TEST(CollectiveCounts, TensorParallelBlocksOfEveryModelTakeFour) {
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert, ModelArch::kQwen3}) {
    const auto calls = [&](int64_t layers) -> int64_t {
      JobConfig c = testing::SmallJobOf(arch, 1, 2, 1);
      c.model.layers = layers;
      const absl::StatusOr<testing::JobRun> run = testing::RunJob(c, 1);
      EXPECT_TRUE(run.ok()) << run.status();
      return run.ok() ? run->calls.at("tp all-reduce") : 0;
    };
    const int64_t head_norms = arch == ModelArch::kQwen3 ? 1 : 0;  // whole weights, whose gradients are sums over heads
    EXPECT_EQ(calls(3) - calls(2), 4 + head_norms) << kModelArchNames[static_cast<size_t>(arch)];
  }
}

TEST(CollectiveCounts, FewerKvHeadsThanTensorParallelRanksFactorTheAxis) {
  // One call over both factors each; the replicated wk and wv are reduced over tp.i, a bucket a layer; norms apart.
  const Calls want = {{"tp.o+tp.i all-reduce", kTensor + 1}, {"tp.i all-reduce", kLayers}, {"tp.o all-reduce", 1}};
  EXPECT_EQ(CallsOf(1, 4, 1), want);
}

TEST(CollectiveCounts, DataTimesTensorParallelIsTheSum) {
  const Calls want = {{"dp all-reduce", kBuckets + 1}, {"loader all-reduce", 1}, {"tp all-reduce", 4 * kTensor + 1}};
  EXPECT_EQ(CallsOf(2, 2, 4), want);
}

// Bytes of a step, exactly: A = B S E elements are one activation, T = B S one number a token; of n ranks each sends
// 2 (n-1)/n of an all-reduce, (n-1)/n of a gather or reduce-scatter (Megatron-LM; Korthikanti et al. 2022, sec. 4.2).
using Bytes = std::map<std::string, double>;

Bytes BytesOf(const JobConfig& config) {
  const absl::StatusOr<testing::JobRun> run = testing::RunJob(config, 1);
  EXPECT_TRUE(run.ok()) << run.status();
  return run.ok() ? run->bytes : Bytes{};
}

constexpr double kElement = 8, kTokens = 8 * 8, kWidth = 16;  // f64; 8 sequences of 8, E 16
constexpr double kA = kTokens * kWidth * kElement, kT = kTokens * kElement;
constexpr double kBucket = 128 * kElement;  // the norm weights of a block, padded
double Share(double n) { return (n - 1) / n; }

TEST(CollectiveBytes, TensorParallel) {
  for (const int64_t n : {2, 4}) {
    for (const int64_t accumulate : {1, 2}) {
      JobConfig c = testing::SmallJob(1, n, accumulate);
      c.model.kv_heads = 4;
      const double activations = (1 + 4 * kLayers + 1) * kA, loss = 3 * kT, norm = kElement;
      EXPECT_EQ(BytesOf(c), (Bytes{{"tp all-reduce", 2 * Share(n) * (activations + loss + norm)}}));
    }
  }
}

TEST(CollectiveBytes, KvHeadsOnSomeRanksOnly) {  // wk and wv: [8, 16] each, on two ranks
  const double activations = (1 + 4 * kLayers + 1) * kA, loss = 3 * kT;
  const double kv = kLayers * 2 * 8 * kWidth / 2 * kElement;
  const Bytes want = {{"tp.o+tp.i all-reduce", 2 * Share(4) * (activations + loss + kElement)},
                      {"tp.i all-reduce", 2 * Share(2) * kv},
                      {"tp.o all-reduce", 2 * Share(2) * kElement}};
  EXPECT_EQ(BytesOf(testing::SmallJob(1, 4, 1)), want);
}

TEST(CollectiveBytes, SequenceParallel) {
  for (const int64_t n : {2, 4}) {
    for (const bool keep : {false, true}) {
      JobConfig c = testing::SmallJob(1, n, 1);
      c.model.kv_heads = 4;
      c.parallel.sequence_parallel = true;
      c.parallel.keep_gathered = keep;
      // A layer gathers twice forward and twice backward, and twice more where what forward gathered is dropped. The head
      // gathers once, and the gradient of the embedding.
      const double gathers = ((keep ? 4 : 6) * kLayers + 2) * kA;
      // Of the vocabulary-parallel loss, the target's logit is wanted by sequence only.
      const double scatters = (1 + 4 * kLayers + 1) * kA + kT;
      const double loss = 2 * kT, sums = 2 * kElement;  // of the loss and the squares of gradients
      const double norms = (kLayers + 1) * kBucket;
      const Bytes want = {{"tp all-gather", Share(n) * gathers},
                          {"tp reduce-scatter", Share(n) * scatters},
                          {"tp all-reduce", 2 * Share(n) * (loss + sums + norms)}};
      EXPECT_EQ(BytesOf(c), want) << n << " keep " << keep;
    }
  }
}

TEST(CollectiveBytes, BlockRecomputeRepeatsTheForwardOfABlock) {
  JobConfig c = testing::SmallJob(1, 2, 1);
  const Bytes without = BytesOf(c);
  c.memory.recompute = Recompute::kBlock;
  // The last product of a block is not redone, nor its sum.
  EXPECT_EQ(BytesOf(c).at("tp all-reduce"), without.at("tp all-reduce") + kLayers * 2 * Share(2) * kA);
}

TEST(CollectiveBytes, BlockRecomputeGathersForForwardAndWeightGradientsAtOnce) {
  JobConfig c = testing::SmallJob(1, 2, 1);
  c.parallel.sequence_parallel = true;
  Bytes want = BytesOf(c);
  want["tp reduce-scatter"] += kLayers * Share(2) * kA;
  c.memory.recompute = Recompute::kBlock;
  EXPECT_EQ(BytesOf(c), want);
}

}  // namespace
}  // namespace strata
