#pragma once
// When things happen on a rank: the stations at which a micro-batch comes by on each stage, and what happens once a step. A
// segment's code is the steps of a position; a value lives from its first to its last use, each a position and a step.

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/plan/plan.h"

namespace strata {

class Stations {
 public:
  // Of one stage, in the order in which a micro-batch comes by.
  enum Station : uint8_t {
    kUnshard,  // not of a micro-batch: its values serve several
    kReceiveActivation,
    kForward,
    kSendActivation,
    kReceiveGradient,
    kInputGrad,  // and weight gradients where the stage has B alone
    kSendGradient,
    kWeightGrad,
    kSendGradientLate,  // where the rank sends after the weight gradients
    kReduce,            // not of a micro-batch
    kNumStations
  };

  explicit Stations(const ProgramSpec& spec);

  int num_positions() const { return num_stages() * kNumStations + 1; }
  int update() const { return num_positions() - 1; }
  int At(int stage, Station station) const { return stage * kNumStations + station; }
  Station StationOf(int position) const { return static_cast<Station>(position % kNumStations); }
  bool OfMicroBatch(int position) const;  // else once a step, or once for several micro-batches
  bool OnceAStep(int position) const { return position == update() || StationOf(position) == kReduce; }

  // Stages of this rank, by index in the order of (replica, stage).
  int num_stages() const { return static_cast<int>(stages_.size()); }
  int StageOf(int position) const { return position / kNumStations; }    // num_stages() for the update
  int StageOf(const Node& n) const { return Find(n.replica, n.stage); }  // -1: not of this rank
  int16_t replica(int stage) const { return stages_[stage].replica; }
  int16_t stage(int stage) const { return stages_[stage].stage; }

  int Of(const Node& n) const;      // -1: no action runs it
  int SendOf(const Edge& e) const;  // -1: the stage is not of this rank
  int ReceiveOf(const Edge& e) const;
  // The positions whose steps an action runs, in order: none for one without code, several for B where the stage has I
  // and W too.
  std::vector<int> CodeOf(const Action& a) const;
  // Whether some gradients are sent before the weight gradients and some after, so that no position is the last use.
  bool sends_differ(int stage) const { return stages_[stage].late && stages_[stage].early; }

 private:
  struct Stage {
    int16_t replica = 0, stage = 0;
    uint32_t kinds = 0;  // bit i: Action::Kind i occurs
    bool early = false,
         late = false;  // gradients that are sent before, and after, the weight gradients of the micro-batch
    bool Has(Action::Kind kind) const { return (kinds >> kind & 1) != 0; }
    bool splits() const { return Has(Action::kI) || Has(Action::kW); }
  };
  int Find(int replica, int stage) const;
  int FindUnsharded(int stage) const;  // of either replica: a rank holds a stage once
  void NoteSends(const ProgramSpec& spec);

  std::vector<Stage> stages_;
  bool updates_ = false;
};

}  // namespace strata
