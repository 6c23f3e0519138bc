#pragma once
// All that a rank does in a step, decided before step 1: printed, checked, simulated, executed. Immutable once built.

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"
#include "core/exec/device.h"
#include "core/graph/graph.h"

namespace strata {

// The order of a rank's step; made by a schedule generator or by hand. Dependencies follow from the keys.
struct Action {
  enum Kind : uint8_t {
    kF,
    kB,
    kI,
    kW,
    kSend,
    kRecv,
    kCopyLocal,
    kUnshard,
    kReshard,
    kReduce,
    kGradNorm,
    kUpdate
  } kind = kF;
  int16_t replica = 0, stage = 0;
  int32_t micro_batch = -1;
  int16_t edge = -1;    // kSend, kRecv: a directed edge of the plan
  int16_t overlap = 0;  // equal and non-zero on neighbours: issued together
};
std::string ToString(const Action& a);  // "F0.3": stage 0, micro-batch 3

// address = base(tier) + region.offset + slot * bytes + ref.offset; the slot belongs to the running action's micro-batch.
struct Region {
  enum Kind : uint8_t { kStatic, kSlot, kTransient, kComm, kWorkspace } kind = kStatic;
  Tier tier = Tier::kDevice;
  std::string name;               // "parameters", "train activations"
  int64_t offset = 0, bytes = 0;  // in the tier's arena; bytes of one slot
  int32_t slots = 1;              // the schedule's peak in flight
};
struct Ref {
  int16_t region = -1;
  int64_t offset = 0;
  bool operator==(const Ref&) const = default;
};

// What the bytes of an operand hold, so that VerifyPlans can tell a clobbered value: the graph value, or kAnything for
// state memory, whose views overlap.
struct Operand {
  static constexpr int64_t kAnything = -1;
  Ref ref;
  TensorRef view;  // view.data is set from ref when a segment is bound to a slot
  int64_t content = kAnything;
};

struct Step {  // one line of `strata plan --steps`
  enum Kind : uint8_t { kLaunch, kCollective, kCopy, kRecord, kWait } kind = kLaunch;
  int16_t stream = 0;
  int32_t event = -1;
  NodeId node = -1;  // for messages, traces, simulated cost
  uint64_t key = 0;
  std::string scope;
  std::shared_ptr<const Op> op;
  const Kernel* kernel = nullptr;
  std::vector<Operand> in, out;
  Ref workspace;  // one region a stream, sized by Kernel::workspace
  int64_t workspace_bytes = 0;
  int16_t comm = -1;
  Collective call{};
};

// The code of one kind of action on one stage, replayed for every micro-batch with its slot. On the first micro-batch,
// accumulating kernels overwrite. `frees`: what is dead after a step (poisoned in debug builds).
struct Segment {
  struct Free {
    int32_t after_step;
    Ref ref;
    int64_t bytes;
  };
  Action::Kind kind = Action::kF;
  int16_t stage = 0;
  std::vector<Step> steps;
  std::vector<Free> frees;
};

struct Port {  // a graph input or output; view holds the rank's local shape and its place in the global tensor
  std::string name;
  Operand operand;
  TensorSpec spec;
};

struct Program {
  std::string name;
  std::vector<Segment> segments;
  std::vector<Action> actions;
  std::vector<Port> inputs, outputs;
};

struct PlannedState {
  std::string name;
  Role role = Role::kParam;
  TensorSpec spec;
  LocalBox box;  // this rank's part under spec.layout
  // Of the box's elements in row-major order, those that this rank stores: all of them, but for a view into a flat state
  // that is sharded (ZeRO). count may be 0.
  int64_t first = 0, count = 0;
  Ref ref;               // of element `first`
  bool is_view = false;  // a range of another state
  Shape model_shape;     // State::model_shape, or spec.shape
};

struct Plan {
  std::vector<Program> programs;  // "train", "eval": one arena, the same kStatic regions, the rest is the maximum
  std::vector<Region> regions;
  std::vector<PlannedState> states;
  std::vector<CommSpec> comms;  // in order of creation
  std::vector<std::string> streams;
  int32_t events = 0;
  std::array<int64_t, kNumTiers> arena_bytes{}, outside_bytes{};  // exact | context, libraries: estimates

  const Program* FindProgram(std::string_view name) const;  // null if absent
  const PlannedState* FindState(std::string_view name) const;
};

struct ProgramSpec {
  std::string name;
  Graph graph;  // after the shard, bucket and optimizer passes; layouts are set
  std::vector<Action> actions;
};

// Lowers graphs to steps and places every byte. States of one name are one tensor. One stream, one stage.
// Errors: NotFound for a missing kernel; InvalidArgument for a dim that does not divide; Internal for a malformed graph.
absl::StatusOr<Plan> BuildPlan(std::span<const ProgramSpec> programs, const Mesh& mesh, const KernelTable& kernels);

// F, B a micro-batch, then the update; or F alone.
std::vector<Action> TrainActions(int micro_batches);
std::vector<Action> ForwardActions();

// Without a device: (1) operands that overlap in memory, one written, are ordered by streams and events; (2) nothing is
// read before it is written, nor after it was overwritten by something else; (3) members of a communicator issue equal
// sequences; (4) sends meet receives. One plan a distinct rank, in rank order; for a single plan 3 and 4 are skipped.
// Errors: Internal naming program, action, step and scope.
absl::Status VerifyPlans(std::span<const Plan> plans);

enum class PrintDetail : uint8_t { kSummary, kSteps };
std::string Print(const Plan& plan, PrintDetail detail = PrintDetail::kSummary);
std::string HumanBytes(double bytes);  // "1.50 GiB"

}  // namespace strata
