#include "core/plan/lower.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/graph/op.h"
#include "core/ops/collective.h"
#include "core/ops/flat.h"
#include "core/plan/memory.h"
#include "core/plan/swap_blocks.h"

namespace strata {
namespace {

constexpr int kForward = 0, kBackward = 1, kStep = 2;  // segments in order
int SegmentOf(Phase p) { return p == Phase::kForward ? kForward : p == Phase::kStep ? kStep : kBackward; }

// The bytes behind one or more values: a state, a graph output, or memory that lives from its first to its last use.
// kSlot: made in F and read in B. Positions are {segment, step}; an input is there before step 0.
struct Storage {
  enum Kind : uint8_t { kState, kOutput, kSlot, kTransient } kind = kTransient;
  int64_t bytes = 0;
  std::pair<int, int> first{1 << 20, 0}, last{-1, 0};
  Ref ref;

  void Touch(std::pair<int, int> at) {
    first = std::min(first, at);
    last = std::max(last, at);
  }
};

class Lowering {
 public:
  Lowering(const ProgramSpec& spec, int program_index, LowerContext& context)
      : graph_(spec.graph), spec_(spec), context_(context), program_index_(program_index) {}

  absl::StatusOr<Program> Run() {
    program_.name = spec_.name;
    program_.actions = spec_.actions;
    segments_.resize(3);
    for (int s = 0; s < 3; ++s)
      segments_[s].kind = s == kForward ? Action::kF : s == kBackward ? Action::kB : Action::kUpdate;
    RETURN_IF_ERROR(AssignStorage());
    for (NodeId id = 0; id < static_cast<NodeId>(graph_.nodes.size()); ++id) {
      const absl::Status s = LowerNode(id);
      if (!s.ok()) return Annotate(s, absl::StrFormat("lowering %%%d %s", id, graph_.nodes[id].scope));
    }
    RETURN_IF_ERROR(LowerUpdates());
    RETURN_IF_ERROR(Place());
    MakePorts();
    for (Segment& s : segments_) {
      if (!s.steps.empty() || s.kind == Action::kF) program_.segments.push_back(std::move(s));
    }
    return std::move(program_);
  }

 private:
  // Where a value lies: in a storage, from a byte on.
  struct Location {
    int storage = 0;
    int64_t offset = 0;
  };
  // While lowering, Operand::ref.offset is an index into locations_; Place() turns it into an address.
  Operand Draft(Location at, const TensorRef& view, int64_t content) {
    locations_.push_back(at);
    return {Ref{-1, static_cast<int64_t>(locations_.size()) - 1}, view,
            storages_[at.storage].kind == Storage::kState ? Operand::kAnything : content};
  }
  Storage& StorageOf(const Operand& draft) { return storages_[locations_[draft.ref.offset].storage]; }
  Ref Address(Location at) const {
    Ref ref = storages_[at.storage].ref;
    ref.offset += at.offset;
    return ref;
  }
  absl::StatusOr<TensorRef> View(const TensorSpec& spec) const {
    ASSIGN_OR_RETURN(const LocalBox box, LocalBoxOf(spec.shape, spec.layout, context_.mesh));
    return TensorRef{nullptr, spec.dtype, box.shape, RowMajorStrides(box.shape), box.origin, spec.shape};
  }
  int64_t Content(Value v) const { return (int64_t{program_index_} << 48) | (int64_t{v.node} << 8) | v.output; }
  absl::StatusOr<Operand> OperandOf(Value v) {
    ASSIGN_OR_RETURN(const TensorRef view, View(graph_.spec(v)));
    return Draft({storage_[v.node][v.output], offset_[v.node][v.output]}, view, content_[v.node][v.output]);
  }
  int NewStorage(Storage::Kind kind, int64_t bytes) {
    storages_.push_back({.kind = kind, .bytes = bytes});
    return static_cast<int>(storages_.size()) - 1;
  }

  // Views and aliases share their input's storage; reads have their state's; the rest gets its own.
  absl::Status AssignStorage() {
    std::map<std::string, int> state_storage;
    for (NodeId id = 0; id < static_cast<NodeId>(graph_.nodes.size()); ++id) {
      const Node& n = graph_.nodes[id];
      storage_.emplace_back();
      offset_.emplace_back();
      content_.emplace_back();
      for (size_t k = 0; k < n.outputs.size(); ++k) {
        const Value v{id, static_cast<int32_t>(k)};
        const int alias = n.op->Aliases(static_cast<int>(k));
        content_[id].push_back(n.op->IsView() ? content_[n.inputs[0].node][n.inputs[0].output] : Content(v));
        if (alias >= 0) {
          const Value root = n.inputs[alias];
          storage_[id].push_back(storage_[root.node][root.output]);
          ASSIGN_OR_RETURN(const int64_t shift, ShiftOf(n));
          offset_[id].push_back(offset_[root.node][root.output] + shift);
          RETURN_IF_ERROR(CheckInside(v));
          continue;
        }
        ASSIGN_OR_RETURN(const TensorRef view, View(n.outputs[k]));
        offset_[id].push_back(0);
        if (AsRead(n) == nullptr) {
          storage_[id].push_back(NewStorage(Storage::kTransient, view.bytes()));
          continue;
        }
        const std::string state = graph_.states[AsRead(n)->state()].name;
        if (!state_storage.contains(state)) {
          state_storage[state] = NewStorage(Storage::kState, view.bytes());
          storages_.back().ref = context_.states.at(state)->ref;
        }
        storage_[id].push_back(state_storage[state]);
      }
    }
    for (const auto& [name, v] : graph_.outputs) {
      Storage& s = storages_[storage_[v.node][v.output]];
      if (s.kind == Storage::kTransient) s.kind = Storage::kOutput;
    }
    for (const auto& [name, v] : graph_.inputs) storages_[storage_[v.node][v.output]].Touch({kForward, -1});
    ReuseDyingInputs();
    return absl::OkStatus();
  }

  // Bytes from the start of its aliased input to that of an output: a shard of a flat tensor in place is a slice of the whole.
  absl::StatusOr<int64_t> ShiftOf(const Node& n) const {
    const int64_t size = SizeOf(n.outputs[0].dtype);
    if (const FlatViewOp* view = AsFlatView(n)) return view->offset() * size;
    if (AsCollective(n) == nullptr || n.outputs[0].shape.rank != 1) return 0;
    ASSIGN_OR_RETURN(const TensorRef in, View(graph_.spec(n.inputs[0])));
    ASSIGN_OR_RETURN(const TensorRef out, View(n.outputs[0]));
    return (out.origin[0] - in.origin[0]) * size;
  }
  absl::Status CheckInside(Value v) const {
    ASSIGN_OR_RETURN(const TensorRef view, View(graph_.spec(v)));
    const int64_t offset = offset_[v.node][v.output];
    if (offset >= 0 && offset + view.bytes() <= storages_[storage_[v.node][v.output]].bytes) return absl::OkStatus();
    return absl::InternalError(absl::StrFormat("%s: %s does not lie in the storage that it shares",
                                               graph_.nodes[v.node].scope, graph_.nodes[v.node].op->name()));
  }

  // An output takes the storage of an input that dies at its node, where the op allows it.
  void ReuseDyingInputs() {
    using Position = std::pair<int, NodeId>;
    std::vector<Position> last_read(storages_.size(), {-1, -1});
    for (NodeId id = 0; id < static_cast<NodeId>(graph_.nodes.size()); ++id) {
      const Node& n = graph_.nodes[id];
      for (Value v : n.inputs) {
        Position& last = last_read[storage_[v.node][v.output]];
        last = std::max(last, Position{SegmentOf(n.phase), id});
      }
    }
    for (const auto& [state, v] : graph_.updates) last_read[storage_[v.node][v.output]] = {kStep + 1, 0};
    for (const auto& [name, v] : graph_.inputs) last_read[storage_[v.node][v.output]] = {kStep + 1, 0};
    std::vector<int> taken(storages_.size());  // storage -> the one it was merged into
    for (size_t i = 0; i < taken.size(); ++i) taken[i] = static_cast<int>(i);
    for (NodeId id = 0; id < static_cast<NodeId>(graph_.nodes.size()); ++id) {
      const Node& n = graph_.nodes[id];
      for (int& s : storage_[id]) s = taken[s];
      if (n.op->Aliases(0) >= 0) continue;
      for (size_t i = 0; i < n.inputs.size(); ++i) {
        const int from = storage_[n.inputs[i].node][n.inputs[i].output], to = storage_[id][0];
        const Storage &dying = storages_[from], &fresh = storages_[to];
        if (!n.op->MayOverwrite(static_cast<int>(i)) || last_read[from] != Position{SegmentOf(n.phase), id} ||
            dying.kind != Storage::kTransient || fresh.kind != Storage::kTransient || dying.bytes != fresh.bytes ||
            offset_[n.inputs[i].node][n.inputs[i].output] != 0) {
          continue;
        }
        taken[to] = storage_[id][0] = from;
        last_read[from] = last_read[to];
        break;
      }
    }
  }

  void Emit(int segment, Step step) {
    const std::pair<int, int> at{segment, static_cast<int>(segments_[segment].steps.size())};
    for (const auto* operands : {&step.in, &step.out}) {
      for (const Operand& o : *operands) StorageOf(o).Touch(at);
    }
    segments_[segment].steps.push_back(std::move(step));
  }

  absl::Status Launch(int segment, Step step) {
    DType dtype = step.out[0].view.dtype;
    std::vector<TensorRef> in;
    for (const Operand& o : step.in) in.push_back(o.view);
    for (const TensorRef& t : in) {
      if (IsFloating(t.dtype)) {
        dtype = t.dtype;
        break;
      }
    }
    ASSIGN_OR_RETURN(step.kernel, context_.kernels.Find(step.op->name(), dtype));
    if (step.kernel->workspace != nullptr) step.workspace_bytes = step.kernel->workspace(*step.op, in);
    workspace_bytes_ = std::max(workspace_bytes_, step.workspace_bytes);
    Emit(segment, std::move(step));
    return absl::OkStatus();
  }

  absl::Status LowerNode(NodeId id) {
    const Node& n = graph_.nodes[id];
    if (AsInput(n) != nullptr || AsRead(n) != nullptr || n.op->IsView()) return absl::OkStatus();
    Step step{.node = id, .key = n.key, .scope = n.scope, .op = n.op};
    for (Value v : n.inputs) {
      ASSIGN_OR_RETURN(Operand o, OperandOf(v));
      step.in.push_back(o);
    }
    for (size_t k = 0; k < n.outputs.size(); ++k) {
      ASSIGN_OR_RETURN(Operand o, OperandOf({id, static_cast<int32_t>(k)}));
      step.out.push_back(o);
    }
    const CollectiveOp* c = AsCollective(n);
    if (c == nullptr || c->kind() == CollectiveOp::Kind::kSlice) return Launch(SegmentOf(n.phase), std::move(step));
    return LowerCollective(SegmentOf(n.phase), *c, std::move(step));
  }

  // A collective moves whole blocks: along a dim with others before it, blocks are swapped to the front before it and back
  // after it.
  absl::Status LowerCollective(int segment, const CollectiveOp& op, Step step) {
    using Kind = CollectiveOp::Kind;
    constexpr Collective::Kind kCall[] = {Collective::kAllReduce, Collective::kAllGather, Collective::kReduceScatter,
                                          Collective::kAllToAll, Collective::kBarrier};
    const int64_t n = context_.mesh.size(op.axes());
    const auto outer = [](const Shape& s, int d) {
      int64_t k = 1;
      for (int i = 0; i < d; ++i) k *= s[i];
      return k;
    };
    const Shape in = step.in[0].view.shape, out = step.out[0].view.shape;
    const Operand result = step.out[0];
    const bool scatters = op.kind() == Kind::kReduceScatter || op.kind() == Kind::kAllToAll;
    const bool gathers = op.kind() == Kind::kAllGather || op.kind() == Kind::kAllToAll;
    if (scatters && outer(in, op.to().dim) > 1) {  // [o, n, rest] -> [n, o, rest]
      const int64_t o = outer(in, op.to().dim);
      ASSIGN_OR_RETURN(step.in[0], Swap(segment, step, step.in[0], {o, n, in.elements() / (o * n)}, nullptr));
    }
    const int64_t unpack = gathers ? outer(out, op.from().dim) : 1;  // [n, o, rest] -> [o, n, rest]
    if (unpack > 1) step.out[0] = Temporary(result.view.dtype, {n, unpack, out.elements() / (n * unpack)});
    step.kind = Step::kCollective;
    step.comm = Comm(op.axes());
    step.call = {.kind = kCall[static_cast<int>(op.kind())],
                 .reduce = op.from().is_partial() ? op.from().reduce : ReduceOp::kSum,
                 .dtype = step.in[0].view.dtype,
                 .count = step.in[0].view.shape.elements()};
    const Operand gathered = step.out[0];
    const Step like = step;
    Emit(segment, std::move(step));
    if (unpack > 1) {
      const Shape blocks = gathered.view.shape;
      RETURN_IF_ERROR(Swap(segment, like, gathered, blocks, &result).status());
    }
    return absl::OkStatus();
  }

  Operand Temporary(DType dtype, const Shape& shape) {
    const int64_t content = Content({static_cast<NodeId>(graph_.nodes.size()), 0}) + (int64_t{++temporaries_} << 8);
    return Draft({NewStorage(Storage::kTransient, shape.elements() * SizeOf(dtype))}, Contiguous(nullptr, dtype, shape),
                 content);
  }

  // blocks[a, b, c] of `from` -> [b, a, c] in `to`, or in a new temporary.
  absl::StatusOr<Operand> Swap(int segment, const Step& like, Operand from, const Shape& blocks, const Operand* to) {
    Operand target = to != nullptr ? *to : Temporary(from.view.dtype, {blocks[1], blocks[0], blocks[2]});
    const Operand result = target;
    from.view = Contiguous(nullptr, from.view.dtype, blocks);
    target.view = Contiguous(nullptr, from.view.dtype, {blocks[1], blocks[0], blocks[2]});
    Step step{
        .node = like.node, .scope = like.scope, .op = std::make_shared<SwapBlocksOp>(), .in = {from}, .out = {target}};
    RETURN_IF_ERROR(Launch(segment, std::move(step)));
    return result;
  }

  int16_t Comm(AxisSet axes) {
    const CommSpec spec{context_.mesh.Name(axes), context_.mesh.Group(axes)};
    const auto it = std::find(context_.comms.begin(), context_.comms.end(), spec);
    if (it != context_.comms.end()) return static_cast<int16_t>(it - context_.comms.begin());
    context_.comms.push_back(spec);
    return static_cast<int16_t>(context_.comms.size() - 1);
  }

  // An update whose value was not made in place is copied at the end of its segment, after all reads of the old value.
  absl::Status LowerUpdates() {
    for (const auto& [state, v] : graph_.updates) {
      const PlannedState& s = *context_.states.at(graph_.states[state].name);
      const Location from{storage_[v.node][v.output], offset_[v.node][v.output]};
      if (storages_[from.storage].kind == Storage::kState && Address(from) == s.ref) continue;
      const Node& n = graph_.nodes[v.node];
      Step step{.kind = Step::kCopy, .node = v.node, .scope = n.scope};
      ASSIGN_OR_RETURN(const Operand in, OperandOf(v));
      const int target = NewStorage(Storage::kState, in.view.bytes());
      storages_[target].ref = s.ref;
      step.in = {in};
      step.out = {Draft({target}, in.view, Operand::kAnything)};
      Emit(SegmentOf(n.phase), std::move(step));
    }
    return absl::OkStatus();
  }

  int16_t AddRegion(Region::Kind kind, const char* what, int64_t bytes, int32_t slots = 1) {
    context_.regions.push_back(
        {.kind = kind, .name = program_.name + " " + what, .bytes = AlignUp(bytes), .slots = slots});
    return static_cast<int16_t>(context_.regions.size() - 1);
  }

  // Packs storages of one kind; `when` gives their interval on a common time line.
  template <typename Select, typename When>
  int64_t Pack(int16_t region, Select select, When when) {
    std::vector<Interval> intervals;
    std::vector<int> which;
    for (size_t i = 0; i < storages_.size(); ++i) {
      if (storages_[i].last.first < 0 || !select(storages_[i])) continue;
      const auto [first, last] = when(storages_[i]);
      intervals.push_back({storages_[i].bytes, first, last});
      which.push_back(static_cast<int>(i));
    }
    const int64_t total = PackIntervals(intervals);
    for (size_t i = 0; i < which.size(); ++i) storages_[which[i]].ref = {region, intervals[i].offset};
    return total;
  }

  absl::Status Place() {
    for (Storage& s : storages_) {
      if (s.kind != Storage::kTransient || s.last.first < 0 || s.first.first == s.last.first) continue;
      if (s.last.first == kStep) return absl::InternalError("a value of a micro-batch is read in the step phase");
      s.kind = Storage::kSlot;
    }
    const int forward_steps = static_cast<int>(segments_[kForward].steps.size());
    const auto timeline = [&](std::pair<int, int> at) {
      return at.second + (at.first == kBackward ? forward_steps : 0);
    };
    const int16_t slots = AddRegion(Region::kSlot, "activations", 0);
    context_.regions[slots].bytes = Pack(
        slots, [](const Storage& s) { return s.kind == Storage::kSlot; },
        [&](const Storage& s) { return std::pair(timeline(s.first), timeline(s.last)); });
    const int16_t transient = AddRegion(Region::kTransient, "transient", 0);
    for (int segment = 0; segment < 3; ++segment) {
      const int64_t bytes = Pack(
          transient, [&](const Storage& s) { return s.kind == Storage::kTransient && s.first.first == segment; },
          [](const Storage& s) { return std::pair(s.first.second, s.last.second); });
      context_.regions[transient].bytes = std::max(context_.regions[transient].bytes, bytes);
    }
    const int16_t outputs = AddRegion(Region::kStatic, "outputs", 0);
    context_.regions[outputs].bytes = Pack(
        outputs, [](const Storage& s) { return s.kind == Storage::kOutput; },
        [](const Storage&) { return std::pair(0, 0); });
    const int16_t workspace = AddRegion(Region::kWorkspace, "workspace", workspace_bytes_);
    for (Segment& segment : segments_) {
      for (Step& step : segment.steps) {
        step.workspace = {workspace, 0};
        for (auto* operands : {&step.in, &step.out}) {
          for (Operand& o : *operands) o.ref = Address(locations_[o.ref.offset]);
        }
      }
    }
    for (const Storage& s : storages_) {
      const bool scratch = s.kind == Storage::kTransient || s.kind == Storage::kSlot;
      if (scratch && s.last.first >= 0 && s.last.second >= 0) {
        segments_[s.last.first].frees.push_back({s.last.second, s.ref, s.bytes});
      }
    }
    for (Segment& s : segments_) {
      std::stable_sort(s.frees.begin(), s.frees.end(), [](auto& a, auto& b) { return a.after_step < b.after_step; });
    }
    return absl::OkStatus();
  }

  void MakePorts() {
    const auto port = [&](const std::string& name, Value v) {
      Operand o = *OperandOf(v);  // the same call succeeded in AssignStorage
      o.ref = Address(locations_[o.ref.offset]);
      return Port{name, o, graph_.spec(v)};
    };
    for (const auto& [name, v] : graph_.inputs) {
      if (storages_[storage_[v.node][v.output]].ref.region >= 0) program_.inputs.push_back(port(name, v));
    }
    for (const auto& [name, v] : graph_.outputs) program_.outputs.push_back(port(name, v));
  }

  const Graph& graph_;
  const ProgramSpec& spec_;
  LowerContext& context_;
  const int program_index_;
  Program program_;
  std::vector<Segment> segments_;
  std::vector<Storage> storages_;
  std::vector<Location> locations_;            // of operands
  std::vector<std::vector<int>> storage_;      // [node][output]
  std::vector<std::vector<int64_t>> offset_;   // [node][output], bytes
  std::vector<std::vector<int64_t>> content_;  // [node][output]
  int64_t workspace_bytes_ = 0;
  int temporaries_ = 0;
};

}  // namespace

absl::StatusOr<Program> LowerProgram(const ProgramSpec& spec, int program_index, LowerContext& context) {
  return Lowering(spec, program_index, context).Run();
}

}  // namespace strata
