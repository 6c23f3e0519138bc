#pragma once
// The table of schedule generators, and what they are written with. A generator is called with a spec that its row accepts.

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "parallel/pipeline/schedule.h"

namespace strata {

struct Generator {
  std::string_view name;
  int min_chunks, max_chunks, usual_chunks;
  std::string_view needs;  // what legal() asks for, in words
  bool (*legal)(const ScheduleSpec& spec);
  Schedule (*make)(const ScheduleSpec& spec);
};
std::span<const Generator> Generators();

// Where stages lie, [stage] -> rank. Loop: stage s on rank s mod p. Zigzag: every second chunk runs backwards over the
// ranks, so that a chunk begins where the one before ends (for two chunks: a V). Mirrored: rank r is rank p-1-r.
std::vector<int> LoopStages(int ranks, int chunks);
std::vector<int> ZigzagStages(int ranks, int chunks);
std::vector<int> Mirrored(std::vector<int> rank_of, int ranks);

// A schedule of this shape whose lists are empty.
Schedule EmptySchedule(const ScheduleSpec& spec, std::vector<std::vector<int>> rank_of);

// Appends actions to one rank's list. The micro-batch is given as its number within the replica.
class RankList {
 public:
  RankList(Schedule& schedule, int rank) : schedule_(schedule), list_(schedule.compute[rank]) {}
  void Add(Action::Kind kind, int replica, int stage, int ordinal);
  void PairLastTwo();  // they are issued together

 private:
  Schedule& schedule_;
  std::vector<Action>& list_;
  int16_t pairs_ = 0;
};

// flush.cc. GPipe (Huang et al., arXiv:1811.06965); 1F1B (PipeDream-Flush: Narayanan et al., arXiv:2006.09503).
Schedule MakeGpipe(const ScheduleSpec& spec);
Schedule Make1F1B(const ScheduleSpec& spec);
// chunked.cc. Interleaved 1F1B (Narayanan et al., arXiv:2104.04473), breadth-first (Lamy-Poirier, arXiv:2211.05953).
bool InterleavedLegal(const ScheduleSpec& spec);
Schedule MakeInterleaved(const ScheduleSpec& spec);
Schedule MakeBreadthFirst(const ScheduleSpec& spec);
// bidirectional.cc. Chimera (Li and Hoefler, arXiv:2107.06925), BitPipe (Wu et al., arXiv:2410.19367).
bool BidirectionalLegal(const ScheduleSpec& spec);
Schedule MakeChimera(const ScheduleSpec& spec);
Schedule MakeBitPipe(const ScheduleSpec& spec);
// zero_bubble.cc. ZB-H1 (Qi et al., arXiv:2401.10241), ZB-V (Qi et al., arXiv:2405.15362).
Schedule MakeZbH1(const ScheduleSpec& spec);
Schedule MakeZbV(const ScheduleSpec& spec);
// dualpipe.cc. DualPipe (DeepSeek-V3, arXiv:2412.19437), and its cut-in-half form on one replica.
bool DualPipeLegal(const ScheduleSpec& spec);
bool DualPipeVLegal(const ScheduleSpec& spec);
Schedule MakeDualPipe(const ScheduleSpec& spec);
Schedule MakeDualPipeV(const ScheduleSpec& spec);
// greedy.cc. List scheduling under a cap on activations.
bool GreedyLegal(const ScheduleSpec& spec);
Schedule MakeGreedy(const ScheduleSpec& spec);

}  // namespace strata
