#pragma once
// What the kernels of backward attention on Hopper share. With c = log2(e) / sqrt(d), lse2 = log2(e) lse and
// delta = rowsum(do * o):
//   p = exp2(c q k^T - lse2);  dv = p^T do;  ds = p (do v^T - delta);  dk = ds^T q / sqrt(d);  dq = ds k / sqrt(d)
// Fast: one kernel by keys makes all three, with five products, and adds to dq's float32 sums in global memory in any order; long rows of
// wide heads are for one in which two blocks share dq. For equal bits: the first makes dk and dv, and one by queries dq, with p and ds made
// in both: seven products.

#include <cuda.h>

#include "core/kernels/attention_sm90.cuh"

namespace strata::sm90 {

struct BackwardArgs {
  TileOrder order;
  int hq = 0, hk = 0, group = 0, s = 0, t = 0;
  bool causal = false;
  float scale = 0;
  int padded = 0;                           // queries, to a multiple of 128
  float *lse2 = nullptr, *delta = nullptr;  // [b, hq, padded]; lse2 is infinite where there is no key or no query
  int* counter = nullptr;                   // of the tiles of queries that were taken
  // Sums of dq, where they are: [b, hq, padded * d], a warp's 16 rows of 64 columns in the order of its accumulators.
  float* dq = nullptr;
  // Where dq and dk are turned back, a tiled table (rope_cuda.h), and its rows from one row of the batch to the next; 0: the same.
  const float4* angles = nullptr;
  int angle_stride = 0;
};

// to = the 64 rows at `own` times the 2 kN at `other`, transposed; boxes of each lie so many bytes apart. Issues.
template <int kD, int kN>
__device__ __forceinline__ void IssueScores(float (&to)[kN], const uint16_t* own, int own_box, const uint16_t* other,
                                            int other_box) {
  const uint64_t x = Descriptor(Shared(own), 0), y = Descriptor(Shared(other), 0);
  Forget(to);
  WgmmaFence();
#pragma unroll
  for (int i = 0; i < kD / 16; ++i) {
    Wgmma<Major::kK, Major::kK>(to, x + StepK<Major::kK>(i, own_box), y + StepK<Major::kK>(i, other_box), i > 0);
  }
  WgmmaCommit();
}

// lse2, delta, a counter of 0, and zeros in the sums where they are.
absl::Status PrepareRows(const AttentionCall& c, const BackwardArgs& args, cudaStream_t stream);
// dq of its sums, which are of tiles of 8192 / d queries; turned back where there are angles.
absl::Status RoundQueryGradient(const AttentionCall& c, const BackwardArgs& args, cudaStream_t stream);
// The kernel by pairs of blocks; makes dk and dv and adds to dq's sums. Sets args.order.
absl::Status LaunchPairs(const AttentionCall& c, BackwardArgs args, cudaStream_t stream);
// The kernel by queries; needs lse2, delta and a counter of 0.
absl::Status LaunchQueryGradient(const AttentionCall& c, BackwardArgs args, cudaStream_t stream);

}  // namespace strata::sm90
