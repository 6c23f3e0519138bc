#include "core/mesh/mesh.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace strata {

std::string ToString(Placement p) {
  if (p.is_shard()) return "S" + std::to_string(p.dim);
  if (p.is_partial()) return p.reduce == ReduceOp::kMax ? "Pmax" : "P";
  return "R";
}

absl::StatusOr<Mesh> Mesh::Make(std::vector<MeshAxis> axes, int ranks, int rank) {
  if (axes.size() > kMaxAxes)
    return absl::InvalidArgumentError(absl::StrFormat("a mesh has at most %d axes", kMaxAxes));
  int64_t product = 1;
  std::string text;
  for (const MeshAxis& a : axes) {
    if (a.size < 1) return absl::InvalidArgumentError(absl::StrFormat("mesh axis %s has size %d", a.name, a.size));
    product *= a.size;
    text += absl::StrFormat("%s%s=%d", text.empty() ? "" : " x ", a.name, a.size);
  }
  if (product != ranks) {
    return absl::InvalidArgumentError(absl::StrFormat("mesh %s has %d ranks, the job has %d", text, product, ranks));
  }
  for (size_t i = axes.size(), after = 1; i-- > 0; after *= static_cast<size_t>(axes[i].size)) {
    if (axes[i].stride == 0) axes[i].stride = static_cast<int>(after);
  }
  std::vector<MeshAxis> by_stride = axes;
  std::stable_sort(by_stride.begin(), by_stride.end(), [](auto& a, auto& b) { return a.stride < b.stride; });
  int64_t next = 1;
  for (const MeshAxis& a : by_stride) {
    if (a.size == 1) continue;
    if (a.stride != next) {
      return absl::InvalidArgumentError(absl::StrFormat("mesh axis %s has stride %d, not %d", a.name, a.stride, next));
    }
    next *= a.size;
  }
  if (rank < 0 || rank >= ranks) return absl::InvalidArgumentError(absl::StrFormat("rank %d of %d", rank, ranks));
  Mesh m;
  m.axes_ = std::move(axes);
  m.rank_ = rank;
  return m;
}

int Mesh::size(AxisSet axes) const {
  int n = 1;
  for (int i = 0; i < num_axes(); ++i) n *= (axes >> i & 1) != 0 ? axes_[i].size : 1;
  return n;
}
int Mesh::size() const { return size(static_cast<AxisSet>(0xff)); }

int Mesh::Coord(int axis) const { return rank_ / axes_[axis].stride % axes_[axis].size; }

AxisSet Mesh::Find(std::string_view name) const {
  AxisSet set = 0;
  for (int i = 0; i < num_axes(); ++i) {
    const std::string& a = axes_[i].name;
    const bool factor = a.size() > name.size() && a.compare(0, name.size(), name) == 0 && a[name.size()] == '.';
    if (a == name || factor) set |= static_cast<AxisSet>(1 << i);
  }
  return set;
}

std::vector<int> Mesh::Group(AxisSet axes) const {
  std::vector<int> ranks = {0};
  for (int i = 0; i < num_axes(); ++i) {
    const bool varies = (axes >> i & 1) != 0;
    std::vector<int> next;
    for (int base : ranks) {
      for (int c = varies ? 0 : Coord(i); c < (varies ? axes_[i].size : Coord(i) + 1); ++c)
        next.push_back(base + c * axes_[i].stride);
    }
    ranks = std::move(next);
  }
  return ranks;
}

std::string Mesh::Name(AxisSet axes) const {
  std::string s;
  for (int i = 0; i < num_axes(); ++i) {
    if ((axes >> i & 1) != 0) s += (s.empty() ? "" : "+") + axes_[i].name;
  }
  return s;
}

absl::StatusOr<LocalBox> LocalBoxOf(const Shape& global, const Layout& layout, const Mesh& mesh) {
  LocalBox box{global, {}};
  box.origin.rank = global.rank;
  for (int a = 0; a < mesh.num_axes(); ++a) {
    if (!layout[a].is_shard()) continue;
    const int d = layout[a].dim, n = mesh.axes()[a].size;
    if (d < 0 || d >= global.rank || box.shape[d] % n != 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("dim %d of %s does not divide by %s=%d", d, ToString(global), mesh.axes()[a].name, n));
    }
    box.shape[d] /= n;
    box.origin[d] += box.shape[d] * mesh.Coord(a);
  }
  return box;
}

std::string ToString(const Layout& layout, const Mesh& mesh) {
  std::string s;
  for (int a = 0; a < mesh.num_axes(); ++a) {
    s += (a > 0 ? " " : "") + mesh.axes()[a].name + ":" + ToString(layout[a]);
  }
  return s;
}

}  // namespace strata
