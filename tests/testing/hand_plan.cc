#include "tests/testing/hand_plan.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "checkpoint/commit.h"
#include "checkpoint/pieces.h"
#include "checkpoint/writer.h"
#include "core/base/check.h"
#include "core/base/philox.h"
#include "core/base/status.h"

namespace strata::testing {
namespace {

// Coordinate and size of the product of the axes, the first outermost.
std::pair<int64_t, int64_t> Share(const Mesh& mesh, AxisSet axes) {
  int64_t coord = 0, size = 1;
  for (int a = 0; a < mesh.num_axes(); ++a) {
    if ((axes >> a & 1) == 0) continue;
    coord = coord * mesh.axes()[a].size + mesh.Coord(a);
    size *= mesh.axes()[a].size;
  }
  return {coord, size};
}

// Where share i of n begins; shares differ, and some may be empty.
int64_t ShareBegin(int64_t elements, int64_t i, int64_t n) { return i == n ? elements : elements * i * i / (n * n); }

PlannedState Place(const HandState& h, const Mesh& mesh, int16_t region) {
  const absl::StatusOr<LocalBox> box = LocalBoxOf(h.padded, h.layout, mesh);
  STRATA_CHECK(box.ok());
  PlannedState s{.name = h.name,
                 .role = h.role,
                 .spec = {h.dtype, h.padded, h.layout},
                 .box = *box,
                 .ref = {region, 0},
                 .model_shape = h.model};
  const int64_t elements = box->shape.elements();
  const auto [coord, size] = Share(mesh, h.flat);
  s.first = ShareBegin(elements, coord, size);
  s.count = ShareBegin(elements, coord + 1, size) - s.first;
  return s;
}

// The index in the whole tensor of stored element i; false where it is padding.
bool IndexOf(const PlannedState& s, int64_t i, Shape* index) {
  int64_t flat = s.first + i;
  *index = s.box.shape;
  bool real = true;
  for (int d = s.box.shape.rank - 1; d >= 0; --d) {
    index->dim[d] = s.box.origin[d] + flat % s.box.shape[d];
    flat /= s.box.shape[d];
    real &= (*index)[d] < s.model_shape[d];
  }
  return real;
}

}  // namespace

std::vector<Plan> HandPlans(const std::vector<MeshAxis>& axes, const std::vector<HandState>& states) {
  int ranks = 1;
  for (const MeshAxis& a : axes) ranks *= a.size;
  std::vector<Plan> plans(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    const absl::StatusOr<Mesh> mesh = Mesh::Make(axes, ranks, rank);
    STRATA_CHECK(mesh.ok());
    for (size_t i = 0; i < states.size(); ++i) {
      plans[rank].states.push_back(Place(states[i], *mesh, static_cast<int16_t>(i)));
    }
  }
  return plans;
}

double ElementValue(const std::string& name, const Shape& index) {
  int64_t key = 1;
  for (int d = 0; d < index.rank; ++d) key = key * 1000 + index[d];
  return static_cast<float>(PhiloxNormal(Philox(5, HashName(name), static_cast<uint64_t>(key))));
}

HandMemory FillMemory(const Plan& plan, double pad) {
  HandMemory memory;
  for (const PlannedState& s : plan.states) {
    std::vector<std::byte>& bytes = memory.emplace_back(s.count * SizeOf(s.spec.dtype));
    for (int64_t i = 0; i < s.count; ++i) {
      Shape index;
      const bool real = IndexOf(s, i, &index);
      SetElement(bytes, s.spec.dtype, i, real ? ElementValue(s.name, index) : pad);
    }
  }
  return memory;
}

absl::StatusOr<std::string> SaveHandPlans(Env& env, const std::string& root, const std::vector<Plan>& plans) {
  ASSIGN_OR_RETURN(const std::string folder, BeginSave(env, root, 1));
  const std::vector<std::vector<PlannedState>> states = StatesToSave(plans);
  std::vector<ShardRecord> records;
  for (int rank = 0; rank < static_cast<int>(plans.size()); ++rank) {
    const HandMemory memory = FillMemory(plans[rank], std::numeric_limits<double>::quiet_NaN());
    std::vector<SavedBox> boxes;
    for (const PlannedState& s : states[rank]) {
      const std::byte* data = memory[s.ref.region].data() + s.ref.offset;
      for (const Piece& piece : PiecesOf(s)) boxes.push_back({piece.box, data + piece.byte_offset});
    }
    ASSIGN_OR_RETURN(records.emplace_back(), WriteShard(env, folder, rank, boxes));
  }
  ASSIGN_OR_RETURN(const Committed done, CommitCheckpoint(env, root, 1, folder, records, {.mesh = "by hand"}, 1));
  return done.path;
}

void SetElement(std::span<std::byte> bytes, DType dtype, int64_t i, double value) {
  const auto put = [&](auto v) { std::memcpy(&bytes[i * sizeof v], &v, sizeof v); };
  if (dtype == DType::kF64) return put(value);
  if (dtype == DType::kF32) return put(static_cast<float>(value));
  put(BF16(static_cast<float>(value)));
}

double GetElement(std::span<const std::byte> bytes, DType dtype, int64_t i) {
  const auto get = [&](auto v) {
    std::memcpy(&v, &bytes[i * sizeof v], sizeof v);
    return v;
  };
  if (dtype == DType::kF64) return get(double{});
  if (dtype == DType::kF32) return get(float{});
  return static_cast<float>(get(BF16()));
}

}  // namespace strata::testing
