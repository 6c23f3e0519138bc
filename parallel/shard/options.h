#pragma once
// The numbers by which the shard pass chooses. Only their ratios matter; defaults are one GPU of a fast node.

namespace strata {

struct ShardOptions {
  double bandwidth = 3e11;  // bytes/s of one rank's links
  double latency_s = 1e-5;  // of one collective
  double memory = 3.5e12;   // bytes/s; prices a slice
  double flops = 6e14;      // matmul and attention, per second
  // Backward reuses what forward gathered (more memory, fewer collectives). Values of rank < 3 are always reused.
  bool keep_gathered = true;
};

}  // namespace strata
