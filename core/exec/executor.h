#pragma once
// Replays a plan; knows no op, no rank, no tier.

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"
#include "core/exec/device.h"
#include "core/plan/plan.h"

namespace strata {

// One a rank, one issuing thread. On the first error Run() aborts every communicator with "rank 3: <cause>", so peers get
// Unavailable with that cause instead of a hang, drains the device, and returns the cause with action, scope and the number
// of collectives issued before; from then on every call returns it.
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
    bool capture = true;  // where the device can: segments without collectives are captured at their second run
  };
  // Host bytes of a graph input for one micro-batch: this rank's local part, exactly.
  using Feed = std::function<absl::StatusOr<std::span<const std::byte>>(const Port& input, int micro_batch)>;

  // Collective over the world: reserves the arena (zeroed), connects the plan's communicators in order, binds every step.
  static absl::StatusOr<std::unique_ptr<Executor>> Create(std::shared_ptr<const Plan> plan, Deps deps);

  // All actions of the program. No allocation, but what a device needs to capture a segment, at its second run.
  absl::Status Run(std::string_view program, const StepScalars& scalars, const Feed& feed);

  // The same, uncaptured and timed on the device.
  struct TimedStep {
    const Step* step;
    Action action;
    double begin = 0, seconds = 0;  // begin: since the first step
  };
  absl::StatusOr<std::vector<TimedStep>> Profile(std::string_view program, const StepScalars& scalars,
                                                 const Feed& feed);

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
    Collective call{};
  };
  struct BoundSegment {  // a segment bound to one slot
    const Program* program = nullptr;
    const Segment* segment = nullptr;
    std::vector<BoundStep> steps;
    bool has_collectives = false;
    struct Replays {
      int runs = 0;
      Captured captured;
    };
    std::array<Replays, 2> replays;  // by KernelArgs::overwrite
  };
  struct Timeline {
    std::vector<Event> timers;  // one before the first step and one after each
    std::vector<TimedStep> steps;
  };
  struct BoundProgram {
    const Program* program = nullptr;
    std::vector<std::vector<BoundSegment>> bound;  // [segment][slot]
    std::vector<int> segment_of_action;
  };

  explicit Executor(Deps deps) : deps_(deps) {}
  std::byte* Address(Ref ref, int slot) const;
  void Bind(const Program& program);
  absl::Status Prepare();  // every kernel's prepare; then the arena is zeroed
  KernelArgs ArgsOf(const BoundStep& b, bool overwrite);
  absl::Status CopyNow(void* to, const void* from, int64_t bytes);
  absl::Status RunAction(BoundProgram& p, const Action& action, int segment, const Feed& feed);
  absl::Status FeedInputs(const Program& program, const Action& action, int slot, const Feed& feed);
  absl::Status RunSegment(BoundSegment& bound, const Action& action, int slot);
  absl::Status RunSteps(const BoundSegment& bound, const Action& action, int slot);
  absl::Status RunStep(const BoundStep& b, const Action& action);
  absl::Status Poison(const Segment& segment, size_t& next, int32_t step, int slot);
  absl::Status Fail(const absl::Status& error);

  Deps deps_;
  std::shared_ptr<const Plan> plan_;
  std::array<std::byte*, kNumTiers> arena_{};
  std::vector<std::unique_ptr<Communicator>> comms_;
  std::vector<Stream> streams_;
  std::vector<Event> events_;
  std::vector<BoundProgram> programs_;
  StepScalars scalars_{};
  StepScalars* device_scalars_ = nullptr;  // fixed address; where kernels read them
  int64_t collectives_ = 0;
  Timeline* timeline_ = nullptr;  // while Profile runs
  absl::Status error_;            // sticky
};

}  // namespace strata
