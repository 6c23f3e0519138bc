#include "core/plan/lower.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/graph/op.h"
#include "core/ops/collective.h"
#include "core/plan/code.h"
#include "core/plan/place_storage.h"
#include "core/plan/slots.h"
#include "core/plan/split_rows.h"
#include "core/plan/stations.h"
#include "core/plan/storage.h"

namespace strata {
namespace {

class Lowering {
 public:
  Lowering(const ProgramSpec& spec, const Stations& stations, StorageMap& storages, LowerContext& context)
      : graph_(spec.graph),
        spec_(spec),
        stations_(stations),
        storages_(storages),
        context_(context),
        code_(stations.num_positions(), storages, context) {}

  absl::StatusOr<Program> Run() {
    program_.name = spec_.name;
    program_.actions = spec_.actions;
    program_.edges = spec_.edges;
    for (NodeId id = 0; id < static_cast<NodeId>(graph_.nodes.size()); ++id) {
      const absl::Status s = LowerNode(id);
      if (!s.ok()) return Annotate(s, absl::StrFormat("lowering %%%d %s", id, graph_.nodes[id].scope));
    }
    RETURN_IF_ERROR(LowerUpdates());
    RETURN_IF_ERROR(LowerTransfers());
    RETURN_IF_ERROR(Place());
    MakeSegments();
    RETURN_IF_ERROR(MakePorts());
    return std::move(program_);
  }

 private:
  absl::StatusOr<int> PositionOf(const Node& n) const {
    const int position = stations_.Of(n);
    if (position >= 0) return position;
    return absl::InternalError(
        absl::StrFormat("no action of program %s runs %s of stage %d", spec_.name, Name(n.phase), n.stage));
  }

  absl::Status LowerNode(NodeId id) {
    const Node& n = graph_.nodes[id];
    if (AsInput(n) != nullptr || AsRead(n) != nullptr || n.op->IsView()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const int position, PositionOf(n));
    Step step{.node = id, .key = n.key, .scope = n.scope, .op = n.op};
    for (Value v : n.inputs) {
      ASSIGN_OR_RETURN(step.in.emplace_back(), storages_.Read(v, position));
    }
    for (size_t k = 0; k < n.outputs.size(); ++k) {
      ASSIGN_OR_RETURN(step.out.emplace_back(), storages_.Write({id, static_cast<int32_t>(k)}));
    }
    const CollectiveOp* c = AsCollective(n);
    if (c == nullptr || c->kind() == CollectiveOp::Kind::kSlice) return code_.Launch(position, std::move(step));
    return LowerCollective(code_, position, *c, std::move(step));
  }

  // An update whose value was not made in place is copied at the end of its segment, after all reads of the old value.
  absl::Status LowerUpdates() {
    for (const auto& [state, v] : graph_.updates) {
      const PlannedState& s = *context_.states.at(graph_.states[state].name);
      const Node& n = graph_.nodes[v.node];
      ASSIGN_OR_RETURN(const int position, PositionOf(n));
      ASSIGN_OR_RETURN(const Operand in, storages_.Read(v, position));
      if (storages_.StorageOf(in).kind == Storage::kState && storages_.AddressOf(in) == s.ref) continue;
      Step step{.kind = Step::kCopy, .node = v.node, .scope = n.scope};
      step.in = {in};
      step.out = {storages_.OfState(s, in.view)};
      code_.Emit(position, std::move(step));
    }
    return absl::OkStatus();
  }

  // One step for each edge that the actions use: a send or receive over the edge's communicator, or a copy.
  absl::Status LowerTransfers() {
    std::set<std::pair<Action::Kind, int>> done;
    for (const Action& a : spec_.actions) {
      if (a.edge < 0 || !done.insert({a.kind, a.edge}).second) continue;
      const absl::Status s = LowerTransfer(a.kind, spec_.edges[a.edge]);
      if (!s.ok()) return Annotate(s, program_.Describe(a));
    }
    return absl::OkStatus();
  }

  absl::Status LowerTransfer(Action::Kind kind, const Edge& edge) {
    const int from = stations_.SendOf(edge), to = stations_.ReceiveOf(edge);
    const bool sends = kind != Action::kRecv, receives = kind != Action::kSend;
    Step step{.scope = sends ? SendName(edge) : RecvName(edge)};
    if (sends) {
      ASSIGN_OR_RETURN(step.in.emplace_back(), EndOf(graph_.outputs, SendName(edge), from));
    }
    if (receives) {
      ASSIGN_OR_RETURN(step.out.emplace_back(), EndOf(graph_.inputs, RecvName(edge), to));
    }
    if (sends && receives) {
      step.kind = Step::kCopy;
      if (step.in[0].view.bytes() != step.out[0].view.bytes())
        return absl::InternalError("the two ends differ in size");
      code_.EmitBetween(from, to, std::move(step));
      return absl::OkStatus();
    }
    const TensorRef& view = sends ? step.in[0].view : step.out[0].view;
    step.kind = Step::kCollective;
    step.comm = code_.Comm({ToString(edge), {edge.from, edge.to}});
    step.call = {.kind = sends ? Collective::kSend : Collective::kRecv,
                 .dtype = view.dtype,
                 .count = view.shape.elements(),
                 .peer = sends ? 1 : 0};
    code_.Emit(sends ? from : to, std::move(step));
    return absl::OkStatus();
  }

  absl::StatusOr<Operand> EndOf(const std::map<std::string, Value>& ends, const std::string& name, int position) {
    const auto it = ends.find(name);
    if (it == ends.end()) return absl::InternalError(absl::StrFormat("the graph has no %s", name));
    return storages_.Read(it->second, position);
  }

  // An operand of a collective that ends behind the computing is not taken for something else meanwhile.
  void KeepOperandsOfCollectives() {
    for (int position = 0; position < stations_.num_positions(); ++position) {
      const std::vector<Step>& steps = code_.steps()[position];
      std::map<int16_t, int> next;  // by communicator
      for (int i = static_cast<int>(steps.size()); i-- > 0;) {
        const Step& step = steps[i];
        if (step.kind != Step::kCollective) continue;
        const int until = next.try_emplace(step.comm, static_cast<int>(steps.size()) - 1).first->second;
        next[step.comm] = i;
        for (const auto* operands : {&step.in, &step.out}) {
          for (const Operand& o : *operands) storages_.Touch(o, {position, until});
        }
        if (step.calls > 1) KeepProducer(position, i);
      }
    }
  }

  // What makes the input of a collective may be split with it (SplitRows): until then, what it and the steps between them read
  // is kept.
  void KeepProducer(int position, int collective) {
    const std::vector<Step>& steps = code_.steps()[position];
    const Storage& in = storages_.StorageOf(steps[collective].in[0]);
    for (int i = collective; i-- > 0 && collective - i <= 4;) {
      bool makes = false;
      for (const Operand& o : steps[i].out) makes |= &storages_.StorageOf(o) == &in;
      for (const Operand& o : steps[i].in) storages_.Touch(o, {position, collective});
      if (makes) return;
    }
  }

  absl::Status Place() {
    if (context_.overlap) KeepOperandsOfCollectives();
    std::vector<int> num_steps;
    for (const auto& steps : code_.steps()) num_steps.push_back(static_cast<int>(steps.size()));
    program_.slots = StageSlots(spec_.actions, spec_.edges, HeldFrom::kForward);
    for (Slots& s : StageSlots(spec_.actions, spec_.edges, HeldFrom::kArrival)) program_.slots.push_back(std::move(s));
    program_.slots.push_back(UnshardedSlots(spec_.actions));
    RETURN_IF_ERROR(PlaceStorages(storages_.storages(),
                                  {.program = program_.name,
                                   .stations = stations_,
                                   .num_steps = std::move(num_steps),
                                   .workspace_bytes = code_.workspace_bytes()},
                                  program_.slots, context_.regions));
    std::erase_if(program_.slots, [](const Slots& s) { return s.region < 0; });
    const auto workspace = static_cast<int16_t>(context_.regions.size() - 1);
    for (auto& steps : code_.steps()) {
      for (Step& step : steps) {
        step.workspace = {workspace, 0};
        for (auto* operands : {&step.in, &step.out}) {
          for (Operand& o : *operands) o.ref = storages_.AddressOf(o);
        }
      }
    }
    return absl::OkStatus();
  }

  // By position. Unsharded parameters are free with their slot, and so is what a stage sends now early, now late.
  std::vector<std::vector<Segment::Free>> Frees() {
    std::vector<std::vector<Segment::Free>> frees(stations_.num_positions());
    for (const Storage& s : storages_.storages()) {
      const auto [position, step] = s.last;
      if (s.kind != Storage::kScratch || !s.used() || step < 0) continue;
      const bool unsharded =
          s.first.first != stations_.update() && stations_.StationOf(s.first.first) == Stations::kUnshard;
      const bool sent_late =
          position != stations_.update() && stations_.StationOf(position) == Stations::kSendGradientLate;
      if (unsharded || (sent_late && stations_.sends_differ(stations_.StageOf(position)))) continue;
      frees[position].push_back({step, s.ref, s.bytes});
    }
    for (auto& list : frees) {
      std::stable_sort(list.begin(), list.end(), [](auto& a, auto& b) { return a.after_step < b.after_step; });
    }
    return frees;
  }

  // In the order of the stations.
  void MakeSegments() {
    const std::vector<std::vector<Segment::Free>> frees = Frees();
    using Key = std::tuple<int, Action::Kind, int16_t, int16_t, int16_t>;
    std::map<Key, std::vector<int>> code;  // positions, by the first of them and the kind of action
    for (const Action& a : spec_.actions) {
      std::vector<int> positions = stations_.CodeOf(a);
      if (a.edge >= 0) {
        const Edge& e = spec_.edges[a.edge];
        positions = {a.kind == Action::kRecv ? stations_.ReceiveOf(e) : stations_.SendOf(e)};
      }
      if (!positions.empty()) code[{positions[0], a.kind, a.replica, a.stage, a.edge}] = positions;
    }
    for (const auto& [key, positions] : code) {
      const auto& [first, kind, replica, stage, edge] = key;
      Segment segment{.kind = kind, .replica = replica, .stage = stage, .edge = edge};
      for (int position : positions) {
        const auto begin = static_cast<int32_t>(segment.steps.size());
        const std::vector<Step>& steps = code_.steps()[position];
        segment.steps.insert(segment.steps.end(), steps.begin(), steps.end());
        for (const Segment::Free& f : frees[position]) {
          segment.frees.push_back({f.after_step + begin, f.ref, f.bytes});
        }
      }
      SplitRows(segment, context_.row_groups);
      if (!segment.steps.empty() || kind == Action::kF) program_.segments.push_back(std::move(segment));
    }
  }

  absl::Status MakePorts() {
    for (const StorageMap::Fed& fed : storages_.fed()) {
      ASSIGN_OR_RETURN(Operand o, storages_.ReadFed(fed));
      o.ref = storages_.AddressOf(o);
      program_.inputs.push_back(
          {fed.name, o, graph_.spec(fed.value), stations_.replica(fed.stage), stations_.stage(fed.stage)});
    }
    for (const auto& [name, v] : graph_.outputs) {
      if (name.compare(0, 5, "send.") == 0) continue;
      ASSIGN_OR_RETURN(Operand o, storages_.Write(v));
      o.ref = storages_.AddressOf(o);
      program_.outputs.push_back({name, o, graph_.spec(v)});
    }
    return absl::OkStatus();
  }

  const Graph& graph_;
  const ProgramSpec& spec_;
  const Stations& stations_;
  StorageMap& storages_;
  LowerContext& context_;
  Code code_;
  Program program_;
};

absl::Status CheckActions(const ProgramSpec& spec) {
  for (const Action& a : spec.actions) {
    const bool transfers = a.kind == Action::kSend || a.kind == Action::kRecv || a.kind == Action::kCopyLocal;
    if (transfers == (a.edge >= 0) && a.edge < static_cast<int>(spec.edges.size())) continue;
    return absl::InternalError(absl::StrFormat("%s names edge %d of %d", ToString(a), a.edge, spec.edges.size()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Program> LowerProgram(const ProgramSpec& spec, int program_index, LowerContext& context) {
  RETURN_IF_ERROR(CheckActions(spec));
  const Stations stations(spec);
  ASSIGN_OR_RETURN(StorageMap storages,
                   StorageMap::Make(spec.graph, stations, context.mesh, context.states, program_index));
  return Lowering(spec, stations, storages, context).Run();
}

}  // namespace strata
