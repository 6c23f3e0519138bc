#pragma once
// The table of layouts that must equal one rank in float64, and how equality is judged.

#include <string>
#include <vector>

#include "tests/testing/small_job.h"

namespace strata::testing {

// A row in words, in any order: "gpt2 odd dp2 tp3 sp acc2 block1".
//   llama, gpt2, bert      the architecture; the last two with dropout 0.2
//   odd                    6 heads, 3 kv heads, vocabulary 1009, sequence 60; else 4, 2, 32, 8
//   tied, kv1, isolate     of the model and its data
//   dpN, tpN, accN, zeroN  ranks, micro-batches of a step, what is sharded over dp
//   selective, blockN      recompute, in all blocks or the first N
//   sp, keep               sequence parallelism; with what forward gathered kept for backward
//   zeroN                  ZeRO's stage
//   layersN, rowsN         of the model; sequences of a step, else 8
//   residentN              with zero3 and ppN: stages that stay gathered
//   ppN, vN                pipeline ranks, stages of one; 1f1b, zbv, ...: the schedule; cut=E,0|1a|1b,H: the stages
struct LayoutRow {
  std::string name;
  JobConfig config;    // 8 sequences a step
  JobConfig one_rank;  // the same model and data on one rank, one micro-batch, nothing recomputed
};
LayoutRow ParseLayoutRow(const std::string& words);
std::vector<LayoutRow> LayoutTable();    // at least 40, of 1 to 16 ranks
std::vector<LayoutRow> MpiLayoutRows();  // those of them that are run as processes too, of 2 to 4 ranks

inline constexpr int kLayoutSteps = 5;
inline constexpr double kLayoutTolerance = 1e-10;

// max|a - b| / max(max|b|, 1), over losses, norms, evaluation and those elements of parameters that `a` has (of a run by one
// process: those of its rank); `what` names the worst. Infinity where token counts or names differ.
struct LayoutDifference {
  double worst = 0;
  std::string what;
};
LayoutDifference DifferenceOf(const JobRun& a, const JobRun& b);

// Runs the row on thread ranks and expects what its one-rank run gives, which rows of the same model share, that the ranks
// hold every element of every parameter, and the same bits where steps overlap and, in half of the rows, where shards are
// exchanged and then summed.
void ExpectEqualsOneRank(const LayoutRow& row);

}  // namespace strata::testing
