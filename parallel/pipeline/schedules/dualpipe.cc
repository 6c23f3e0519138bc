// DualPipe: two streams of micro-batches meet on every rank, and a forward of one is issued together with a backward of
// the other, so that the communication of each hides behind the compute of the other. DualPipe has two replicas on p
// ranks; DualPipe-V folds a model of 2 p stages into a V, its two arms being the two streams.

#include <algorithm>
#include <deque>

#include "parallel/pipeline/schedules/generators.h"

namespace strata {
namespace {

// Where a rank's two streams run, and its distance from where they turn.
struct Streams {
  int replica[2], stage[2];  // [stream]; stream 0 reaches the rank first
  int depth, place;          // ranks up to the turn; this rank's place among them, 0 being the outermost
};

class DualPipeRank {
 public:
  DualPipeRank(RankList list, const Streams& streams) : list_(list), at_(streams) {}

  enum Split { kWhole, kSplit };  // B, or I with W put off
  void F(int stream) { list_.Add(Action::kF, at_.replica[stream], at_.stage[stream], f_[stream]++); }
  void B(int stream, Split split = kWhole) {
    const int k = b_[stream]++;
    list_.Add(split == kSplit ? Action::kI : Action::kB, at_.replica[stream], at_.stage[stream], k);
    if (split == kSplit) pending_.push_back({stream, k});
  }
  void W() {
    const auto [stream, k] = pending_.front();
    pending_.pop_front();
    list_.Add(Action::kW, at_.replica[stream], at_.stage[stream], k);
  }
  void FB(int f_stream, int b_stream) {
    F(f_stream);
    B(b_stream);
    list_.PairLastTwo();
  }

  // `pairs`: rounds of the steady state.
  void Run(int pairs) {
    const int inner = at_.depth - at_.place - 1, outer = at_.place + 1;
    for (int k = 0; k < 2 * inner; ++k) F(0);
    for (int k = 0; k < outer; ++k) F(0), F(1);
    for (int k = 0; k < inner; ++k) B(1, kSplit), W(), F(1);
    for (int k = 0; k < pairs; ++k) {
      if (k == 0 && inner == 0) {
        F(0), B(1);  // on the ranks of the turn B waits for this very F
      } else {
        FB(0, 1);
      }
      FB(1, 0);
    }
    for (int k = 0; k < inner; ++k) B(1), FB(1, 0);
    Split split = kWhole;  // half-way, W is put off
    for (int k = 0; k < outer; ++k) {
      if (k == outer / 2 && at_.place % 2 == 1) split = kSplit;
      B(1, split);
      if (k == outer / 2 && at_.place % 2 == 0) split = kSplit;
      B(0, split);
    }
    for (int k = 0; k < inner; ++k) W(), B(0, kSplit);
    while (!pending_.empty()) W();
  }

 private:
  struct Pending {
    int stream, ordinal;
  };
  RankList list_;
  const Streams at_;
  int f_[2] = {}, b_[2] = {};
  std::deque<Pending> pending_;
};

}  // namespace

bool DualPipeLegal(const ScheduleSpec& spec) {
  return spec.ranks % 2 == 0 && spec.micro_batches % 2 == 0 && spec.micro_batches >= 2 * spec.ranks;
}
bool DualPipeVLegal(const ScheduleSpec& spec) { return spec.micro_batches >= 2 * spec.ranks; }

Schedule MakeDualPipe(const ScheduleSpec& spec) {
  const int p = spec.ranks;
  const std::vector<int> down = LoopStages(p, 1);
  Schedule s = EmptySchedule(spec, {down, Mirrored(down, p)});
  for (int r = 0; r < p; ++r) {
    const int near = r < p / 2 ? 0 : 1, far = 1 - near, stage[2] = {r, p - 1 - r};
    const Streams streams{
        .replica = {near, far}, .stage = {stage[near], stage[far]}, .depth = p / 2, .place = std::min(r, p - 1 - r)};
    DualPipeRank(RankList(s, r), streams).Run(spec.micro_batches / 2 - p + streams.place + 1);
  }
  return s;
}

Schedule MakeDualPipeV(const ScheduleSpec& spec) {
  const int p = spec.ranks;
  Schedule s = EmptySchedule(spec, {ZigzagStages(p, 2)});
  for (int r = 0; r < p; ++r) {
    const Streams streams{.replica = {0, 0}, .stage = {r, 2 * p - 1 - r}, .depth = p, .place = r};
    DualPipeRank(RankList(s, r), streams).Run(spec.micro_batches - 2 * p + r + 1);
  }
  return s;
}

}  // namespace strata
