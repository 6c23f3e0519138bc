#pragma once
// Sums over the rows of tensors, the gradient of what is broadcast over rows, in two passes: each fixed block of rows into
// its own row of the workspace, then these in order. The bits do not depend on the number of threads.

#include <algorithm>
#include <cstddef>
#include <span>

#include "core/kernels/cpu_util.h"

namespace strata {

inline constexpr int64_t kMinBlockRows = 16, kMaxRowBlocks = 64, kSumColumns = 256;

inline int64_t BlockRows(int64_t rows) { return std::max(kMinBlockRows, (rows + kMaxRowBlocks - 1) / kMaxRowBlocks); }
inline int64_t NumRowBlocks(int64_t rows) { return (rows + BlockRows(rows) - 1) / BlockRows(rows); }

// Elements of the workspace of `sums` sums of `columns` columns each.
inline int64_t SumRowsWorkspace(int64_t rows, int64_t columns, int64_t sums) {
  return NumRowBlocks(rows) * columns * sums;
}

// out[i][c] = sum over rows of what add_row(row, total) adds to total[i * columns + c].
template <typename C, typename AddRow>
void SumRows(ThreadPool* pool, int64_t rows, int64_t columns, std::span<std::byte> workspace, std::span<C* const> out,
             const AddRow& add_row) {
  const int64_t block = BlockRows(rows), blocks = NumRowBlocks(rows), width = columns * std::ssize(out);
  C* partial = reinterpret_cast<C*>(workspace.data());  // [blocks, width]
  ForTiles(pool, rows, block, [&](int64_t begin, int64_t end) {
    C* total = partial + begin / block * width;
    std::fill_n(total, width, C{0});
    for (int64_t r = begin; r < end; ++r) add_row(r, total);
  });
  for (int64_t i = 0; i < std::ssize(out); ++i) {
    ForTiles(pool, columns, kSumColumns, [&](int64_t first, int64_t last) {
      std::fill(out[i] + first, out[i] + last, C{0});
      for (int64_t b = 0; b < blocks; ++b) {
        const C* total = partial + b * width + i * columns;
        for (int64_t c = first; c < last; ++c) out[i][c] += total[c];
      }
    });
  }
}

}  // namespace strata
