#include "core/plan/storage.h"

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/graph/op.h"
#include "core/ops/collective.h"
#include "core/ops/flat.h"

namespace strata {
namespace {

bool IsFed(const Node& n) { return AsInput(n) != nullptr && !absl::StartsWith(AsInput(n)->input(), "recv."); }
bool IsSent(const std::string& output) { return absl::StartsWith(output, "send."); }

}  // namespace

absl::StatusOr<StorageMap> StorageMap::Make(const Graph& graph, const Stations& stations, const Mesh& mesh,
                                            const States& states, int program_index) {
  StorageMap map(graph, stations, mesh, states, program_index);
  for (NodeId id = 0; id < static_cast<NodeId>(graph.nodes.size()); ++id) RETURN_IF_ERROR(map.AssignNode(id));
  map.MarkOutputs();
  map.ReuseDyingInputs();
  RETURN_IF_ERROR(map.PlaceParts());
  return map;
}

int64_t StorageMap::Content(Value v) const {
  return (int64_t{program_index_} << 48) | (int64_t{v.node} << 8) | v.output;
}

absl::StatusOr<TensorRef> StorageMap::View(const TensorSpec& spec) const {
  ASSIGN_OR_RETURN(const LocalBox box, LocalBoxOf(spec.shape, spec.layout, mesh_));
  return TensorRef{nullptr, spec.dtype, box.shape, RowMajorStrides(box.shape), box.origin, spec.shape};
}

int StorageMap::New(Storage::Kind kind, int64_t bytes) {
  storages_.push_back({.kind = kind, .bytes = bytes});
  return static_cast<int>(storages_.size()) - 1;
}

Operand StorageMap::Draft(Location at, const TensorRef& view, int64_t content) {
  drafts_.push_back(at);
  return {Ref{-1, static_cast<int64_t>(drafts_.size()) - 1}, view,
          storages_[at.storage].kind == Storage::kState ? Operand::kAnything : content};
}

Ref StorageMap::AddressOf(const Operand& draft) const {
  Ref ref = StorageOf(draft).ref;
  ref.offset += At(draft).offset;
  return ref;
}

// Views and aliases share their input's storage; reads have their state's; the rest gets its own.
absl::Status StorageMap::AssignNode(NodeId id) {
  const Node& n = graph_.nodes[id];
  location_.emplace_back();
  content_.emplace_back();
  for (size_t k = 0; k < n.outputs.size(); ++k) {
    const Value v{id, static_cast<int32_t>(k)};
    const int alias = n.op->Aliases(static_cast<int>(k));
    content_[id].push_back(n.op->IsView() ? content_[n.inputs[0].node][n.inputs[0].output] : Content(v));
    if (IsFed(n)) {
      location_[id].emplace_back();
      if (stations_.StageOf(n) >= 0) RETURN_IF_ERROR(Locate(v, stations_.StageOf(n)).status());
      continue;
    }
    if (alias >= 0) {
      ASSIGN_OR_RETURN(Location at, Locate(n.inputs[alias], stations_.StageOf(n)));
      ASSIGN_OR_RETURN(const int64_t shift, ShiftOf(n));
      location_[id].push_back({at.storage, at.offset + shift});
      RETURN_IF_ERROR(CheckInside(v));
      continue;
    }
    ASSIGN_OR_RETURN(const TensorRef view, View(n.outputs[k]));
    if (AsRead(n) == nullptr) {
      location_[id].push_back({New(Storage::kScratch, view.bytes())});
      continue;
    }
    const std::string& state = graph_.states[AsRead(n)->state()].name;
    const auto [it, fresh] = state_storage_.try_emplace(state, -1);
    if (fresh) {
      it->second = New(Storage::kState, view.bytes());
      storages_[it->second].ref = states_.at(state)->ref;
    }
    location_[id].push_back({it->second});
  }
  return absl::OkStatus();
}

// Bytes from the start of its aliased input to that of an output: a shard of a flat tensor in place is a slice of the whole.
absl::StatusOr<int64_t> StorageMap::ShiftOf(const Node& n) const {
  const int64_t size = SizeOf(n.outputs[0].dtype);
  if (const FlatViewOp* view = AsFlatView(n)) return view->offset() * size;
  if (AsCollective(n) == nullptr || n.outputs[0].shape.rank != 1) return 0;
  ASSIGN_OR_RETURN(const TensorRef in, View(graph_.spec(n.inputs[0])));
  ASSIGN_OR_RETURN(const TensorRef out, View(n.outputs[0]));
  return (out.origin[0] - in.origin[0]) * size;
}

absl::Status StorageMap::CheckInside(Value v) const {
  ASSIGN_OR_RETURN(const TensorRef view, View(graph_.spec(v)));
  const Location& at = location_[v.node][v.output];
  if (at.offset >= 0 && at.offset + view.bytes() <= storages_[at.storage].bytes) return absl::OkStatus();
  return absl::InternalError(absl::StrFormat("%s: %s does not lie in the storage that it shares",
                                             graph_.nodes[v.node].scope, graph_.nodes[v.node].op->name()));
}

absl::StatusOr<StorageMap::Location> StorageMap::Locate(Value v, int stage) {
  const Node& n = graph_.nodes[v.node];
  if (!IsFed(n)) return location_[v.node][v.output];
  if (stage < 0) return absl::InternalError(absl::StrFormat("input %s is read once a step", AsInput(n)->input()));
  const auto [it, fresh] = fed_.try_emplace({v.node, stage}, -1);
  if (fresh) {
    ASSIGN_OR_RETURN(const TensorRef view, View(n.outputs[0]));
    it->second = New(Storage::kScratch, view.bytes());
    storages_[it->second].Touch({stations_.At(stage, Stations::kForward), -1});
  }
  return Location{it->second};
}

void StorageMap::MarkOutputs() {
  for (const auto& [name, v] : graph_.outputs) {
    const int storage = location_[v.node][v.output].storage;
    if (storage >= 0 && storages_[storage].kind == Storage::kScratch && !IsSent(name)) {
      storages_[storage].kind = Storage::kOutput;
    }
  }
}

std::vector<StorageMap::Place> StorageMap::LastReads() const {
  std::vector<Place> last_read(storages_.size(), {-1, -1});
  const auto read = [&](Value v, Place at) {
    const int storage = location_[v.node][v.output].storage;
    if (storage >= 0) last_read[storage] = std::max(last_read[storage], at);
  };
  for (NodeId id = 0; id < static_cast<NodeId>(graph_.nodes.size()); ++id) {
    for (Value v : graph_.nodes[id].inputs) read(v, {stations_.Of(graph_.nodes[id]), id});
  }
  const Place never{stations_.num_positions(), 0};
  for (const auto& [state, v] : graph_.updates) read(v, never);
  for (const auto& [name, v] : graph_.outputs) read(v, never);
  for (const auto& [key, storage] : fed_) last_read[storage] = never;
  return last_read;
}

// Parts that die where they are packed are made in their places.
absl::Status StorageMap::PlaceParts() {
  const std::vector<Place> last_read = LastReads();
  std::map<int, Location> moved;             // storages -> where they lie now
  std::map<int64_t, int64_t> whole_of_part;  // contents
  for (NodeId id = 0; id < static_cast<NodeId>(graph_.nodes.size()); ++id) {
    const Node& n = graph_.nodes[id];
    const PackOp* pack = AsPack(n);
    if (pack == nullptr) continue;
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      const Value v = n.inputs[i];
      const int s = location_[v.node][v.output].storage;
      ASSIGN_OR_RETURN(const TensorRef view, View(graph_.spec(v)));
      if (s < 0 || storages_[s].kind != Storage::kScratch || storages_[s].bytes != view.bytes() || moved.contains(s) ||
          last_read[s] != Place{stations_.Of(n), id} || view.dtype != n.outputs[0].dtype) {
        continue;
      }
      moved[s] = {location_[id][0].storage, pack->offsets()[i] * SizeOf(view.dtype)};
      whole_of_part[content_[v.node][v.output]] = content_[id][0];
    }
  }
  if (moved.empty()) return absl::OkStatus();
  for (size_t id = 0; id < graph_.nodes.size(); ++id) {
    for (size_t k = 0; k < location_[id].size(); ++k) {
      Location& at = location_[id][k];
      if (const auto to = moved.find(at.storage); to != moved.end()) {
        at = {to->second.storage, at.offset + to->second.offset};
      }
      int64_t& content = content_[id][k];
      if (const auto to = whole_of_part.find(content); to != whole_of_part.end()) content = to->second;
    }
  }
  return absl::OkStatus();
}

// An output takes the storage of an input that dies at its node, where the op allows it.
void StorageMap::ReuseDyingInputs() {
  std::vector<Place> last_read = LastReads();
  const Place never{stations_.num_positions(), 0};  // what is sent outlives the stage's input
  const auto storage_of = [&](Value v) { return location_[v.node][v.output].storage; };  // -1: fed, and kept
  std::vector<int> taken(storages_.size());  // storage -> the one it was merged into
  for (size_t i = 0; i < taken.size(); ++i) taken[i] = static_cast<int>(i);
  for (NodeId id = 0; id < static_cast<NodeId>(graph_.nodes.size()); ++id) {
    const Node& n = graph_.nodes[id];
    for (Location& at : location_[id]) {
      if (at.storage >= 0) at.storage = taken[at.storage];
    }
    if (n.op->Aliases(0) >= 0 || AsInput(n) != nullptr) continue;
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      const int from = storage_of(n.inputs[i]), to = storage_of({id, 0});
      if (from < 0 || last_read[to] == never || !n.op->MayOverwrite(static_cast<int>(i)) ||
          last_read[from] != Place{stations_.Of(n), id} ||
          location_[n.inputs[i].node][n.inputs[i].output].offset != 0) {
        continue;
      }
      const Storage &dying = storages_[from], &fresh = storages_[to];
      if (dying.kind != Storage::kScratch || fresh.kind != Storage::kScratch || dying.bytes != fresh.bytes) continue;
      taken[to] = from;
      location_[id][0].storage = from;
      last_read[from] = last_read[to];
      break;
    }
  }
}

// A value made for one stage's micro-batch is read by that stage alone; what is done once a step is for all of them.
absl::StatusOr<Operand> StorageMap::Read(Value v, int position) {
  const Node& n = graph_.nodes[v.node];
  const int stage = position == stations_.update() ? -1 : stations_.StageOf(position);
  ASSIGN_OR_RETURN(const Location at, Locate(v, stage));
  const int maker = PositionOf(v);
  if (storages_[at.storage].kind == Storage::kScratch && !IsFed(n) && maker >= 0 && stations_.OfMicroBatch(maker) &&
      stations_.StageOf(maker) != stage) {
    return absl::InternalError(absl::StrFormat(
        "%s of stage %d is read by another stage, or once a step: between stages values pass over edges", n.scope,
        n.stage));
  }
  ASSIGN_OR_RETURN(const TensorRef view, View(graph_.spec(v)));
  return Draft(at, view, content_[v.node][v.output]);
}

Operand StorageMap::Temporary(DType dtype, const Shape& shape) {
  const int64_t content = Content({static_cast<NodeId>(graph_.nodes.size()), 0}) + (int64_t{++temporaries_} << 8);
  return Draft({New(Storage::kScratch, shape.elements() * SizeOf(dtype))}, Contiguous(nullptr, dtype, shape), content);
}

Operand StorageMap::OfState(const PlannedState& state, const TensorRef& view) {
  const int storage = New(Storage::kState, view.bytes());
  storages_[storage].ref = state.ref;
  return Draft({storage}, view, Operand::kAnything);
}

std::vector<StorageMap::Fed> StorageMap::fed() const {
  std::vector<Fed> list;
  for (const auto& [name, v] : graph_.inputs) {
    for (const auto& [key, storage] : fed_) {
      if (key.first == v.node) list.push_back({AsInput(graph_.nodes[v.node])->input(), v, key.second});
    }
  }
  return list;
}

absl::StatusOr<Operand> StorageMap::ReadFed(const Fed& fed) {
  return Read(fed.value, stations_.At(fed.stage, Stations::kForward));
}

}  // namespace strata
