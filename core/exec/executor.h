#pragma once
// Replays a plan; knows no op, no rank, no tier.

#include <array>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"
#include "core/comm/rank_ledger.h"
#include "core/exec/device.h"
#include "core/plan/plan.h"

namespace strata {

// One a rank, one issuing thread. On the first error Run() aborts every communicator with "rank 3: <cause>", so peers get
// Unavailable with that cause instead of a hang, drains the device, and returns the cause with action, edge or scope, and the
// number of collectives issued before; from then on every call returns it.
class Executor {
 public:
  enum class Freed : uint8_t {
    kKeep,
    kPoison
  };  // kPoison: freed ranges are filled with 0xFF (NaN) after their last use
#ifdef STRATA_POISON
  static constexpr Freed kDefaultFreed = Freed::kPoison;
#else
  static constexpr Freed kDefaultFreed = Freed::kKeep;
#endif
  struct Deps {
    Device& device;
    World& world;
    ThreadPool* pool = nullptr;
    Freed freed = kDefaultFreed;
    bool capture = true;  // where the device can: segments without collectives are captured behind their first run
    // Called once if preparing kernels, which may time their variants, takes longer than `patience`.
    std::function<void()> on_slow_start = nullptr;
    std::chrono::milliseconds patience{5000};
  };
  // Host bytes of a graph input for one micro-batch: this rank's local part, exactly.
  using Feed = std::function<absl::StatusOr<std::span<const std::byte>>(const Port& input, int micro_batch)>;

  // Collective over the world: reserves the arena (zeroed), connects the plan's communicators in order, binds every step.
  static absl::StatusOr<std::unique_ptr<Executor>> Create(std::shared_ptr<const Plan> plan, Deps deps);

  // All actions of the program. No allocation, but what a device needs to capture a segment, behind its first run. Returns
  // when the outputs are there; with overlap, updates may still run, beside the next Run() of the program.
  absl::Status Run(std::string_view program, const StepScalars& scalars, const Feed& feed);

  // The same, uncaptured and timed on the device.
  struct TimedStep {
    const Step* step;
    Action action;
    int16_t stream = 0;
    double begin = 0, seconds = 0;  // begin: since the first step
  };
  absl::StatusOr<std::vector<TimedStep>> Profile(std::string_view program, const StepScalars& scalars,
                                                 const Feed& feed);

  // When the last Run() began and ended each action, by the host's steady clock, in seconds: of thread ranks comparable. On
  // a device that runs asynchronously: when its work was issued.
  struct TimedAction {
    double begin = 0, end = 0;
  };
  std::span<const TimedAction> Timeline(std::string_view program) const;  // by action of the program; empty if absent

  // How many slots of each of Program::slots were held at a time, at most, in the last Run().
  std::span<const int> PeakSlots(std::string_view program) const;

  // Between steps, for initial values and checkpoints: the bytes of a state that this rank stores (PlannedState::count
  // elements), from and to host memory.
  absl::Status ReadState(const PlannedState& state, std::span<std::byte> host);
  absl::Status WriteState(const PlannedState& state, std::span<const std::byte> host);
  // What the last Run() made of an output: its bytes in `host`, and its shape there (data = host).
  absl::StatusOr<TensorRef> ReadOutput(std::string_view program, std::string_view name, std::vector<std::byte>& host);

  bool host_addressable() const { return deps_.device.host_addressable(); }
  // By address, where host_addressable(): the memory of a state; of an output.
  std::span<std::byte> StateBytes(const PlannedState& state);
  absl::StatusOr<TensorRef> Output(std::string_view program, std::string_view name);

  const Plan& plan() const { return *plan_; }
  absl::Status Close();  // collective

 private:
  struct BoundStep {
    const Step* step = nullptr;
    std::vector<TensorRef> in, out;
    std::span<std::byte> workspace;
    std::vector<Collective> calls;
    bool overwrite = false;  // no earlier action has written the accumulator
  };
  struct BoundSegment {  // a segment bound to slots
    const Segment* segment = nullptr;
    std::vector<BoundStep> steps;
    bool has_collectives = false;
    Captured captured;
  };
  // Who holds the slots of a region: a micro-batch, or for unsharded parameters a stage.
  struct SlotHolders {
    static constexpr int32_t kNobody = -1;
    std::vector<int32_t> holder;  // by slot
    int held = 0;
  };
  struct StepTimers {
    std::span<const Event> timers;  // one before the run; then one before and one after each step
    std::vector<TimedStep> steps;
  };
  struct BoundProgram {
    const Program* program = nullptr;
    std::deque<BoundSegment> bound;
    std::vector<BoundSegment*> by_action;  // null: the action has no code
    std::vector<TimedAction> times;        // by action
    std::vector<std::string> names;        // by action: "issuing train F0.3", for the ledger
    std::vector<SlotHolders> holders;      // by Program::slots
    std::vector<int> peaks;                // of holders
  };

  explicit Executor(Deps deps) : deps_(std::move(deps)) {}
  std::byte* Address(Ref ref, int slot) const;
  std::byte* Address(Ref ref, const Program& program, size_t action) const;
  void Bind(const Program& program);
  BoundSegment BindSegment(const Program& program, size_t action, const Segment& segment,
                           const std::vector<bool>& overwrites) const;
  const BoundProgram* Find(std::string_view program) const;
  absl::Status Prepare();  // every kernel's prepare; then the arena is zeroed
  KernelArgs ArgsOf(const BoundStep& b, bool overwrite, int16_t stream);
  absl::Status CopyNow(void* to, const void* from, int64_t bytes);
  absl::Status RunAction(BoundProgram& p, size_t action, const Feed& feed);
  absl::Status TakeSlots(BoundProgram& p, size_t action);
  void ReturnSlots(BoundProgram& p, size_t action);
  absl::Status FeedInputs(const Program& program, size_t action, const Feed& feed);
  absl::Status RunSegment(BoundSegment& bound, const Program& program, size_t action);
  absl::Status RunActions(BoundProgram& p, const Feed& feed);
  absl::Status RunSteps(const BoundSegment& bound, const Program& program, size_t action);
  absl::Status RunIssues(BoundProgram& p, const Feed& feed);
  absl::Status RunIssue(BoundProgram& p, const IssuedStep& issue, const Feed& feed);
  absl::Status RunStep(const BoundStep& b, int16_t stream);
  absl::Status At(const absl::Status& s, const Program& program, const Action& a, int step, const Step& code) const;
  absl::Status Timed(const BoundStep& b, const Action& action, int16_t stream);
  absl::Status SendScalars(const StepScalars& scalars, bool overlap);
  bool overlaps(const Program& p) const { return deps_.freed == Freed::kKeep && !p.issues.empty(); }
  absl::Status Poison(const Segment& segment, size_t& next, int32_t step, const Program& program, size_t action);
  absl::Status Fail(const absl::Status& error);
  void Say(std::string_view what, int64_t step = -1, std::string_view scope = {}) {
    if (activity_ != nullptr) activity_->Set(what, step, scope);
  }

  Deps deps_;
  std::shared_ptr<const Plan> plan_;
  std::array<std::byte*, kNumTiers> arena_{};
  std::vector<std::unique_ptr<Communicator>> comms_;
  std::vector<Stream> streams_;
  std::vector<Event> events_;
  std::deque<BoundProgram> programs_;  // they hold pointers into themselves
  StepScalars scalars_{};
  // Where kernels read them: two in turn, for with overlap a run's updates may still read theirs when the next run has its own.
  struct DeviceScalars {
    StepScalars* at = nullptr;
    std::vector<Event> read;  // by stream: recorded behind the run that had them; streams[0] has none
  };
  std::array<DeviceScalars, 2> device_scalars_;
  int turn_ = 0;
  const BoundProgram* running_on_ = nullptr;  // whose last run may have left work on the device
  int64_t collectives_ = 0;
  StepTimers* timers_ = nullptr;    // while Profile runs
  std::vector<Event> kept_timers_;  // of it, for the next one
  absl::Status error_;              // sticky
  Activity* activity_ = nullptr;    // where this rank says what it does
};

}  // namespace strata
