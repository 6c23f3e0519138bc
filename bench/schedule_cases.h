#pragma once
// Published comparisons of pipeline schedules, by simulation: durations by floating-point operations at one rate, transfers and
// collectives by bytes at one bandwidth. What is compared is ratios. Figures of the machines are assumptions, not measurements.

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"

namespace strata {

struct TransformerCase {
  double layers, width, seq, micro;  // micro: sequences of a micro-batch
  double tensor_parallel = 1;        // ranks that share a layer
  double flops_per_s = 1;            // achieved by a rank
  double link_bytes_per_s = 1;       // of a rank, to the next stage and to its data-parallel peers
  double boundary_split = 1;         // tensor-parallel ranks each send a part of the boundary
  double data_parallel = 1;          // ranks with the same stage
  bool recompute = false;            // B runs F again
  int resident_stages = 0;           // > 0: ZeRO-3
};

// A block's matmuls are 12 width^2 weights, its scores 4 seq width a token and pass.
inline StageDurations DurationsOf(const TransformerCase& c, const Schedule& s) {
  const double blocks = c.layers / s.stages(), weights = 12 * c.width * c.width;
  const double tokens = c.micro * c.seq, scale = tokens * blocks / c.tensor_parallel / c.flops_per_s;
  const double products = 2 * weights * scale, scores = 4 * c.seq * c.width * scale, f = products + scores;
  const double stage_bytes = 2 * weights * blocks / c.tensor_parallel;  // 16-bit
  const double copies = c.data_parallel * s.replicas;                   // whose gradients are summed
  StageDurations d = StageDurations::Uniform(
      s.stages(), {.forward = f,
                   .input_grad = products + 2 * scores + (c.recompute ? f : 0),
                   .weight_grad = products,
                   .unshard = stage_bytes * (1 - 1 / c.data_parallel) / c.link_bytes_per_s,
                   .reduce = (c.resident_stages > 0 ? 1 : 2) * stage_bytes * (1 - 1 / copies) / c.link_bytes_per_s});
  d.latency = 1e-5;
  d.boundary_bytes = 2 * tokens * c.width / c.boundary_split;
  d.bytes_per_s = c.link_bytes_per_s;
  return d;
}

// Seconds of a step, reductions included.
inline double SimulatedStep(const TransformerCase& c, const ScheduleSpec& spec) {
  const Schedule s = MakeSchedule(spec).value();
  const StageDurations d = DurationsOf(c, s);
  LowerOptions o;
  if (c.resident_stages > 0) o = {.zero = 3, .resident_stages = c.resident_stages};
  return Simulate(s, LowerSchedule(s, d, o).value(), d, Streams::kEveryChannel)->makespan();
}

// GPT-3 175B on 96 A100: 8 tensor-parallel x 12 stages (Narayanan et al. 2021, section 5.3.2), full recompute; each
// tensor-parallel rank sends its part over its own InfiniBand link (section 4.1).
inline TransformerCase Gpt175B() {
  return {.layers = 96,
          .width = 12288,
          .seq = 2048,
          .micro = 1,
          .tensor_parallel = 8,
          .flops_per_s = 1.6e14,
          .link_bytes_per_s = 2e10,
          .boundary_split = 8,
          .recompute = true};
}

// 52B on 64 V100 in 8 nodes (Lamy-Poirier 2023): 64 layers of 8192; 8 stages, ranks of a node share its InfiniBand.
inline TransformerCase Gpt52B(double tensor_parallel, int resident_stages) {
  return {.layers = 64,
          .width = 8192,
          .seq = 1024,
          .micro = 1,
          .tensor_parallel = tensor_parallel,
          .flops_per_s = 6e13,
          .link_bytes_per_s = 6e9,
          .boundary_split = 1,
          .data_parallel = 8 / tensor_parallel,
          .resident_stages = resident_stages};
}

// The two models of BitPipe (Wu et al. 2024) on 8 A800 of one node.
inline TransformerCase Bert64() {
  return {.layers = 64, .width = 2560, .seq = 512, .micro = 4, .flops_per_s = 1.5e14, .link_bytes_per_s = 1.5e11};
}
inline TransformerCase Gpt96() {
  return {.layers = 96, .width = 3072, .seq = 1024, .micro = 1, .flops_per_s = 1.5e14, .link_bytes_per_s = 1.5e11};
}

}  // namespace strata
