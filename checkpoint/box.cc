#include "checkpoint/box.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {

std::optional<int64_t> CheckedElements(const Shape& shape) {
  int64_t n = 1;
  for (int i = 0; i < shape.rank; ++i) {
    if (shape[i] < 1 || shape[i] > kMaxTensorElements / n) return std::nullopt;
    n *= shape[i];
  }
  return n;
}

Shape OriginOf(const Shape& shape) {
  Shape origin;
  origin.rank = shape.rank;
  return origin;
}

absl::Status CheckBox(const Shape& global, const Shape& offset, const Shape& size) {
  if (!CheckedElements(global)) {
    return absl::InvalidArgumentError(absl::StrFormat("shape %s is empty or too large", ToString(global)));
  }
  bool inside = offset.rank == global.rank && size.rank == global.rank;
  for (int i = 0; inside && i < global.rank; ++i) {
    inside = size[i] >= 1 && size[i] <= global[i] && offset[i] >= 0 && offset[i] <= global[i] - size[i];
  }
  if (inside) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("box of offset %s and size %s is not inside shape %s",
                                                    ToString(offset), ToString(size), ToString(global)));
}

bool BoxesOverlap(const Shape& offset_a, const Shape& size_a, const Shape& offset_b, const Shape& size_b) {
  for (int i = 0; i < offset_a.rank; ++i) {
    if (offset_a[i] + size_a[i] <= offset_b[i] || offset_b[i] + size_b[i] <= offset_a[i]) return false;
  }
  return true;
}

absl::Status ForEachRun(const Shape& from_offset, const Shape& from_size, const Shape& to_offset, const Shape& to_size,
                        int64_t element_bytes, RunFn fn) {
  if (!BoxesOverlap(from_offset, from_size, to_offset, to_size)) return absl::OkStatus();
  const int rank = from_offset.rank;
  const Shape from_stride = RowMajorStrides(from_size), to_stride = RowMajorStrides(to_size);
  Shape count = from_size;   // of the common part
  int64_t from = 0, to = 0;  // its first element
  for (int i = 0; i < rank; ++i) {
    const int64_t begin = std::max(from_offset[i], to_offset[i]);
    count[i] = std::min(from_offset[i] + from_size[i], to_offset[i] + to_size[i]) - begin;
    from += (begin - from_offset[i]) * from_stride[i];
    to += (begin - to_offset[i]) * to_stride[i];
  }
  // A run takes in dim i, and goes on to dim i - 1 where it holds dim i whole on both sides.
  int outer = rank;
  int64_t run = 1;
  while (outer > 0) {
    run *= count[--outer];
    if (count[outer] != from_size[outer] || count[outer] != to_size[outer]) break;
  }
  Shape index = count;
  std::fill_n(index.dim, rank, 0);
  while (true) {
    RETURN_IF_ERROR(fn(from * element_bytes, to * element_bytes, run * element_bytes));
    int i = outer - 1;
    for (; i >= 0; --i) {
      from += from_stride[i];
      to += to_stride[i];
      if (++index[i] < count[i]) break;
      from -= count[i] * from_stride[i];
      to -= count[i] * to_stride[i];
      index[i] = 0;
    }
    if (i < 0) return absl::OkStatus();
  }
}

// Greedy: from `first` on always the largest box that is left. It grows up to the dim where the range is widest and shrinks
// again: one box a dim on each way, and one in between.
void ForEachBoxOfRange(const Shape& size, int64_t first, int64_t count, BoxFn fn) {
  while (count > 0) {
    int d = size.rank;  // the box holds dims [d, rank) whole, `row` elements
    int64_t row = 1;
    while (d > 0 && first % (row * size[d - 1]) == 0 && row * size[d - 1] <= count) row *= size[--d];
    Shape offset = size, box = size;
    std::fill_n(offset.dim, size.rank, 0);
    int64_t index = first / row;
    for (int i = d - 1; i >= 0; --i) {
      offset[i] = index % size[i];
      index /= size[i];
      box[i] = i < d - 1 ? 1 : std::min(count / row, size[i] - offset[i]);
    }
    fn(offset, box);
    const int64_t taken = box.elements();
    first += taken;
    count -= taken;
  }
}

std::string BoxName(const Shape& offset, const Shape& size) {
  std::string text = "[";
  for (int i = 0; i < size.rank; ++i) {
    text += absl::StrFormat("%s%d:%d", i > 0 ? ", " : "", offset[i], offset[i] + size[i]);
  }
  return text + "]";
}

}  // namespace strata
