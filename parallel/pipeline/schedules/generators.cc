#include "parallel/pipeline/schedules/generators.h"

#include <algorithm>

#include "core/base/check.h"

namespace strata {
namespace {

bool Any(const ScheduleSpec&) { return true; }
constexpr int kManyChunks = 64;
constexpr std::string_view kEvenAndWhole = "an even number of ranks, and micro-batches in multiples of the ranks";

constexpr Generator kGenerators[] = {
    {"gpipe", 1, 1, 1, "nothing", Any, MakeGpipe},
    {"1f1b", 1, 1, 1, "nothing", Any, Make1F1B},
    {"interleaved", 2, kManyChunks, 2,
     "ranks <= group <= micro_batches, and micro_batches mod group = 0 or >= ranks (group: the ranks if not given)",
     InterleavedLegal, MakeInterleaved},
    {"breadth-first", 1, kManyChunks, 2, "nothing", Any, MakeBreadthFirst},
    {"chimera", 1, 1, 1, kEvenAndWhole, BidirectionalLegal, MakeChimera},
    {"bitpipe", 2, 2, 2, kEvenAndWhole, BidirectionalLegal, MakeBitPipe},
    {"zb-h1", 1, 1, 1, "nothing", Any, MakeZbH1},
    {"zbv", 2, 2, 2, "nothing", Any, MakeZbV},
    {"dualpipe", 1, 1, 1, "an even number of ranks, an even number of micro-batches, and micro_batches >= 2 ranks",
     DualPipeLegal, MakeDualPipe},
    {"dualpipe-v", 2, 2, 2, "micro_batches >= 2 ranks", DualPipeVLegal, MakeDualPipeV},
    {"greedy", 1, kManyChunks, 2,
     "memory_cap >= replicas, and with 2 replicas an even number of ranks and an even number of micro-batches",
     GreedyLegal, MakeGreedy},
};

}  // namespace

std::span<const Generator> Generators() { return kGenerators; }

std::vector<int> LoopStages(int ranks, int chunks) {
  std::vector<int> rank_of(ranks * chunks);
  for (int s = 0; s < ranks * chunks; ++s) rank_of[s] = s % ranks;
  return rank_of;
}

std::vector<int> ZigzagStages(int ranks, int chunks) {
  std::vector<int> rank_of = LoopStages(ranks, chunks);
  for (int s = 0; s < ranks * chunks; ++s) {
    if (s / ranks % 2 == 1) rank_of[s] = ranks - 1 - rank_of[s];
  }
  return rank_of;
}

std::vector<int> Mirrored(std::vector<int> rank_of, int ranks) {
  for (int& r : rank_of) r = ranks - 1 - r;
  return rank_of;
}

Schedule EmptySchedule(const ScheduleSpec& spec, std::vector<std::vector<int>> rank_of) {
  Schedule s{.name = spec.name, .ranks = spec.ranks, .chunks = spec.chunks, .micro_batches = spec.micro_batches};
  s.replicas = static_cast<int>(rank_of.size());
  s.rank_of = std::move(rank_of);
  s.compute.resize(spec.ranks);
  return s;
}

void RankList::Add(Action::Kind kind, int replica, int stage, int ordinal) {
  list_.push_back({.kind = kind,
                   .replica = static_cast<int16_t>(replica),
                   .stage = static_cast<int16_t>(stage),
                   .micro_batch = ordinal * schedule_.replicas + replica});
}

void RankList::PairLastTwo() {
  STRATA_CHECK(list_.size() >= 2);
  pairs_ = static_cast<int16_t>(pairs_ % 32000 + 1);
  list_[list_.size() - 2].overlap = list_.back().overlap = pairs_;
}

}  // namespace strata
