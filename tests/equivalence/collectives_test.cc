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

TEST(CollectiveCounts, FewerKvHeadsThanTensorParallelRanksFactorTheAxis) {
  // One call over both factors each; the replicated wk and wv are reduced over tp.i, a bucket a layer; norms apart.
  const Calls want = {{"tp.o+tp.i all-reduce", kTensor + 1}, {"tp.i all-reduce", kLayers}, {"tp.o all-reduce", 1}};
  EXPECT_EQ(CallsOf(1, 4, 1), want);
}

TEST(CollectiveCounts, DataTimesTensorParallelIsTheSum) {
  const Calls want = {{"dp all-reduce", kBuckets + 1}, {"loader all-reduce", 1}, {"tp all-reduce", 4 * kTensor + 1}};
  EXPECT_EQ(CallsOf(2, 2, 4), want);
}

}  // namespace
}  // namespace strata
