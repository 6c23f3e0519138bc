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
  int16_t replica = 0, stage = 0;  // kSend, kCopyLocal: the sender's stage; kRecv: the receiver's
  int32_t micro_batch = -1;
  int16_t edge = -1;    // kSend, kRecv, kCopyLocal: of Program::edges
  int16_t overlap = 0;  // equal and non-zero on neighbours: may be issued together
};
std::string ToString(const Action& a);  // "F0.3": stage 0, micro-batch 3; "recv 1.3"; "F0.3 of replica 1"

// What goes once a micro-batch from a stage to its neighbour: the activation to stage + 1, or the gradient to stage - 1. Of
// the sender's graph it is the output "send.act.R.S" or "send.grad.R.S" (replica R, stage S); of the receiver's, the input
// "recv.act.R.S+1" or "recv.grad.R.S-1".
struct Edge {
  enum Kind : uint8_t { kActivation, kGradient } kind = kActivation;
  int from = 0, to = 0;            // global ranks; equal: a copy within the rank
  int16_t replica = 0, stage = 0;  // the sender's stage
  int receiver() const { return kind == kActivation ? stage + 1 : stage - 1; }
};
std::string ToString(const Edge& e);  // "edge 2->3 activation": also the name of its communicator
std::string SendName(const Edge& e);  // "send.act.0.1"
std::string RecvName(const Edge& e);  // "recv.act.0.2"

// address = base(tier) + region.offset + slot * bytes + ref.offset; the slot is that of the running action (Slots).
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
  int16_t comm = -1;  // of a launch: that of the collective which it ends, and behind which it is issued
  // A gather or scatter along a dim with others before it: so many calls that start together, each on what follows in `in`
  // and `out`; `call` is the first.
  int32_t calls = 1;
  Collective call{};
};

// When a step of an action is issued, and on which stream, where work of several streams overlaps.
struct IssuedStep {
  static constexpr int32_t kFeed = -1, kOutputs = -2;  // instead of a step: inputs are copied; outputs are there
  int32_t action = 0, step = 0;                        // of Program::actions; of its segment
  int16_t stream = 0;
  int32_t record = -1;  // the event recorded after it; -1: none
  // Events that its stream waits for first: each as last recorded, in this run of the program or in the one before.
  std::vector<int32_t> waits;
};

// The code of one kind of action on one stage, replayed for every micro-batch with its slot. An accumulating kernel
// overwrites where no earlier action of the program has written its accumulator. `frees`: what is dead after a step
// (poisoned in debug builds).
struct Segment {
  struct Free {
    int32_t after_step;
    Ref ref;
    int64_t bytes;
  };
  Action::Kind kind = Action::kF;
  int16_t replica = 0, stage = 0, edge = -1;
  std::vector<Step> steps;
  std::vector<Free> frees;
};

struct Port {  // a graph input or output; view holds the rank's local shape and its place in the global tensor
  std::string name;
  Operand operand;
  TensorSpec spec;
  int16_t replica = 0, stage = 0;  // of an input: the stage that reads it, fed with its F; one port for each such stage
};

// Which slot of a region each action works on: what a micro-batch leaves for later actions of its stage stays in one slot
// from the first action that needs it there to the last.
struct Slots {
  struct Use {
    int16_t slot = -1;  // -1: the action does not touch the region
    bool last = false;  // the slot is free after this action
  };
  int16_t region = -1;
  int16_t replica = 0, stage = 0;
  std::vector<Use> by_action;
};

struct Program {
  std::string name;
  std::vector<Segment> segments;
  std::vector<Action> actions;
  std::vector<Edge> edges;
  std::vector<Slots> slots;  // one a kSlot region
  std::vector<Port> inputs, outputs;
  std::vector<IssuedStep> issues;  // every step of every action; empty: the actions in order, on stream 0

  int SegmentOf(const Action& a) const;  // index; -1: the action has no code
  int SlotOf(int16_t region, size_t action) const;
  std::string Describe(const Action& a) const;  // "train recv 1.3 over edge 0->1 activation"
};

struct PlannedStream {
  std::string name;  // "compute", "collectives dp", "update"
  Priority priority = Priority::kNormal;
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
  std::vector<PlannedStream> streams;
  int32_t events = 0;
  std::array<int64_t, kNumTiers> arena_bytes{}, outside_bytes{};  // exact | context, libraries: estimates

  const Program* FindProgram(std::string_view name) const;  // null if absent
  const PlannedState* FindState(std::string_view name) const;
};

struct ProgramSpec {
  std::string name;
  Graph graph;  // after the shard, bucket and optimizer passes; layouts are set
  std::vector<Action> actions;
  std::vector<Edge> edges;
};

struct BuildPlanOptions {
  bool overlap = false;  // programs say when their steps are issued, on several streams (core/plan/overlap.h)
  AxisSet stages = 0;    // axes along which ranks have other actions: pipeline stages
  int row_groups = 1;    // with `overlap`: into how many groups of rows products beside collectives are split
  // Reduce-scatters are all-to-alls and launches that sum: for a transport whose copies take no multiprocessors but whose sums do.
  bool exchange = false;
};
// Lowers graphs to steps and places every byte. States of one name are one tensor. The graph holds all stages of
// the rank: Node::replica and Node::stage say which one a node belongs to, and between them values travel over edges only.
// A segment is made for each kind of action that occurs; nodes of Phase::kReduce without such an action join the update.
// Errors: NotFound for a missing kernel; InvalidArgument for a dim that does not divide; Internal for a malformed graph, or
// actions that leave nodes out.
absl::StatusOr<Plan> BuildPlan(std::span<const ProgramSpec> programs, const Mesh& mesh, const KernelTable& kernels,
                               const BuildPlanOptions& options = {});

// Orders the communicators of all ranks of a job, so that each rank connects those of its list one after the other, and no
// two of one position share a rank. A position where a rank has none holds CommSpec{}.
void AlignCommunicators(std::span<Plan> plans);

// F, B a micro-batch, then the update; or F alone.
std::vector<Action> TrainActions(int micro_batches);
std::vector<Action> ForwardActions();

// Without a device: (1) operands that overlap in memory, one written, are ordered by streams and events; (2) nothing is
// read before it is written, nor after it was overwritten by something else, such as another micro-batch; (3) members of a
// communicator issue equal sequences; (4) sends meet receives of their size, in order; (5) ranks that go through their
// lists one call at a time, each waiting for its members, come to the end. One plan a distinct rank, in rank order; for a
// single plan 3 to 5 are skipped. Errors: Internal naming program, action, step and scope; for 5 the ranks that wait for
// each other.
absl::Status VerifyPlans(std::span<const Plan> plans);

enum class PrintDetail : uint8_t { kSummary, kSteps };
std::string Print(const Plan& plan, PrintDetail detail = PrintDetail::kSummary);
std::string HumanBytes(double bytes);  // "1.50 GiB"

}  // namespace strata
