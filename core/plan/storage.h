#pragma once
// The bytes behind the values of a program while it is lowered: which values share them, and from when to when they are
// needed. Operands are drafts until the storages have addresses: Ref::offset is an index here.

#include <map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/mesh/mesh.h"
#include "core/plan/plan.h"
#include "core/plan/stations.h"

namespace strata {

// Of a state, of a graph output, or scratch memory that lives from its first to its last use. An input of the graph is
// there before step 0 of the forward code that reads it.
struct Storage {
  using Moment = std::pair<int, int>;  // position of the stations, step
  enum Kind : uint8_t { kState, kOutput, kScratch } kind = kScratch;
  int64_t bytes = 0;
  Moment first{1 << 20, 0}, last{-1, 0};
  Ref ref;

  bool used() const { return last.first >= 0; }
  void Touch(Moment at) {
    first = std::min(first, at);
    last = std::max(last, at);
  }
};

class StorageMap {
 public:
  using States = std::map<std::string, const PlannedState*>;
  // Of all values of the graph. All arguments but `program_index` must outlive the map.
  static absl::StatusOr<StorageMap> Make(const Graph& graph, const Stations& stations, const Mesh& mesh,
                                         const States& states, int program_index);

  // Drafts. Errors of Read: Internal where a stage reads a value of another one.
  absl::StatusOr<Operand> Read(Value v, int position);
  absl::StatusOr<Operand> Write(Value v) { return Read(v, PositionOf(v)); }
  Operand Temporary(DType dtype, const Shape& shape);
  Operand OfState(const PlannedState& state, const TensorRef& view);

  void Touch(const Operand& draft, Storage::Moment at) { storages_[At(draft).storage].Touch(at); }
  const Storage& StorageOf(const Operand& draft) const { return storages_[At(draft).storage]; }
  Ref AddressOf(const Operand& draft) const;  // of a state at any time; else once storages are placed

  std::vector<Storage>& storages() { return storages_; }

  // Inputs of the graph that arrive from other stages are not fed.
  struct Fed {
    std::string name;
    Value value;
    int stage = 0;  // of the stations
  };
  std::vector<Fed> fed() const;
  absl::StatusOr<Operand> ReadFed(const Fed& fed);

 private:
  struct Location {  // where a value lies: in a storage, from a byte on
    int storage = -1;
    int64_t offset = 0;
  };

  StorageMap(const Graph& graph, const Stations& stations, const Mesh& mesh, const States& states, int program_index)
      : graph_(graph), stations_(stations), mesh_(mesh), states_(states), program_index_(program_index) {}
  int PositionOf(Value v) const { return stations_.Of(graph_.nodes[v.node]); }
  int StageReading(int position) const;
  int64_t Content(Value v) const;
  absl::StatusOr<TensorRef> View(const TensorSpec& spec) const;
  int New(Storage::Kind kind, int64_t bytes);
  Operand Draft(Location at, const TensorRef& view, int64_t content);
  const Location& At(const Operand& draft) const { return drafts_[draft.ref.offset]; }
  absl::StatusOr<Location> Locate(Value v, int stage);
  absl::StatusOr<int64_t> ShiftOf(const Node& n) const;
  absl::Status CheckInside(Value v) const;
  absl::Status AssignNode(NodeId id);
  void MarkOutputs();
  using Place = std::pair<int, NodeId>;  // position, node
  std::vector<Place> LastReads() const;  // by storage
  absl::Status PlaceParts();
  void ReuseDyingInputs();

  const Graph& graph_;
  const Stations& stations_;
  const Mesh& mesh_;
  const States& states_;
  const int program_index_;
  std::vector<Storage> storages_;
  std::vector<std::vector<Location>> location_;  // [node][output]; of fed inputs, see fed_
  std::vector<std::vector<int64_t>> content_;    // [node][output]
  std::map<std::pair<NodeId, int>, int> fed_;    // storage of an input of the graph, by the stage that reads it
  std::map<std::string, int> state_storage_;
  std::vector<Location> drafts_;
  int temporaries_ = 0;
};

}  // namespace strata
