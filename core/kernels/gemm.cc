#include "core/kernels/gemm.h"

#include <cblas.h>

#include <algorithm>
#include <mutex>
#include <type_traits>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/kernels/blas_info.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/onednn.h"

namespace strata {
namespace {

constexpr int64_t kTileCols = 512;
constexpr int64_t kPanel = 512, kDepth = 1024;  // rows and columns of C, and depth, converted from bf16 at a time

// Tall tiles make OpenBLAS pack the operands less often; small products get shorter ones, so that there are several.
int64_t TileRows(int64_t m, int64_t n) {
  int64_t rows = 256;
  while (rows > 32 && (m + rows - 1) / rows * ((n + kTileCols - 1) / kTileCols) < 8) rows /= 2;
  return rows;
}

template <typename T>
Matrix<T> Block(Matrix<T> x, int64_t row, int64_t col) {
  x.data += x.trans == Transpose::kNo ? row * x.ld + col : col * x.ld + row;
  return x;
}

CBLAS_TRANSPOSE Blas(Transpose t) { return t == Transpose::kNo ? CblasNoTrans : CblasTrans; }

// One tile: c = a b + beta c.
template <typename T>
void Tile(int64_t m, int64_t n, int64_t k, Matrix<const T> a, Matrix<const T> b, double beta, Matrix<T> c) {
  SerialGemm(m, n, k, 1, a, b, beta, c);
}
void Tile(int64_t m, int64_t n, int64_t k, Matrix<const BF16> a, Matrix<const BF16> b, double beta, Matrix<float> c) {
  OneDnnGemm(m, n, k, a, b, beta, c);
}

// c = a b + beta c, tile by tile.
template <typename T, typename Sum>
void TiledGemm(int64_t m, int64_t n, int64_t k, Matrix<const T> a, Matrix<const T> b, double beta, Matrix<Sum> c,
               ThreadPool* pool) {
  const int64_t tile_rows = TileRows(m, n), cols = (n + kTileCols - 1) / kTileCols;
  ParallelFor(pool, (m + tile_rows - 1) / tile_rows * cols, [&](int64_t tile) {
    const int64_t i = tile / cols * tile_rows, j = tile % cols * kTileCols;
    Tile(std::min(tile_rows, m - i), std::min(kTileCols, n - j), k, Block(a, i, 0), Block(b, 0, j), beta,
         Block(c, i, j));
  });
}

// The stored rows and columns of a [rows, cols] matrix.
struct Extent {
  int64_t rows, cols;
};
Extent Stored(Transpose t, int64_t rows, int64_t cols) {
  return t == Transpose::kNo ? Extent{rows, cols} : Extent{cols, rows};
}

// Copies a [rows, cols] block to `to`, densely, as it is stored.
template <typename To, typename From>
Matrix<const To> Convert(Matrix<From> from, int64_t rows, int64_t cols, To* to, int64_t to_ld, ThreadPool* pool) {
  const Extent e = Stored(from.trans, rows, cols);
  ForTiles(pool, e.rows, 32, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t i = 0; i < e.cols; ++i)
        to[r * to_ld + i] = static_cast<To>(static_cast<float>(from.data[r * from.ld + i]));
    }
  });
  return {to, to_ld, from.trans};
}

// fn(i, j, rows, cols) over the panels of an [m, n] matrix.
template <typename Fn>
void ForPanels(int64_t m, int64_t n, const Fn& fn) {
  for (int64_t i = 0; i < m; i += kPanel) {
    for (int64_t j = 0; j < n; j += kPanel) fn(i, j, std::min(kPanel, m - i), std::min(kPanel, n - j));
  }
}

// The sums of a panel of bf16 results are kept in the workspace.
template <typename Out>
void NativeBf16Gemm(int64_t m, int64_t n, int64_t k, Matrix<const BF16> a, Matrix<const BF16> b, Matrix<Out> c,
                    std::span<std::byte> workspace, ThreadPool* pool) {
  if constexpr (std::is_same_v<Out, float>) {
    TiledGemm(m, n, k, a, b, 0, c, pool);
  } else {
    ForPanels(m, n, [&](int64_t i, int64_t j, int64_t rows, int64_t cols) {
      const Matrix<float> sum = {reinterpret_cast<float*>(workspace.data()), cols};
      TiledGemm(rows, cols, k, Block(a, i, 0), Block(b, 0, j), 0, sum, pool);
      Convert(sum, rows, cols, Block(c, i, j).data, c.ld, pool);
    });
  }
}

// Blocks of the operands are converted in the workspace, and so are results where they are bf16.
template <typename Out>
void ConvertedBf16Gemm(int64_t m, int64_t n, int64_t k, Matrix<const BF16> a, Matrix<const BF16> b, Matrix<Out> c,
                       std::span<std::byte> workspace, ThreadPool* pool) {
  const int64_t panel_m = std::min(m, kPanel), panel_n = std::min(n, kPanel), depth = std::min(k, kDepth);
  float* a_block = reinterpret_cast<float*>(workspace.data());
  float* b_block = a_block + panel_m * depth;
  float* c_block = b_block + depth * panel_n;
  ForPanels(m, n, [&](int64_t i, int64_t j, int64_t rows, int64_t cols) {
    Matrix<float> sum = {c_block, cols};
    if constexpr (std::is_same_v<Out, float>) sum = Block(c, i, j);
    for (int64_t p = 0; p < k; p += kDepth) {
      const int64_t d = std::min(kDepth, k - p);
      const auto af = Convert(Block(a, i, p), rows, d, a_block, Stored(a.trans, rows, d).cols, pool);
      const auto bf = Convert(Block(b, p, j), d, cols, b_block, Stored(b.trans, d, cols).cols, pool);
      TiledGemm(rows, cols, d, af, bf, p == 0 ? 0 : 1, sum, pool);
    }
    if constexpr (std::is_same_v<Out, BF16>) Convert(sum, rows, cols, Block(c, i, j).data, c.ld, pool);
  });
}

template <typename Out>
void Bf16Gemm(int64_t m, int64_t n, int64_t k, Matrix<const BF16> a, Matrix<const BF16> b, Matrix<Out> c,
              std::span<std::byte> workspace, ThreadPool* pool, GemmLibrary library) {
  STRATA_CHECK(static_cast<int64_t>(workspace.size()) >= GemmWorkspace(DType::kBF16, m, n, k));
  if (library == GemmLibrary::kOneDnn) {
    NativeBf16Gemm(m, n, k, a, b, c, workspace, pool);
  } else {
    ConvertedBf16Gemm(m, n, k, a, b, c, workspace, pool);
  }
}

}  // namespace

void InitCpuLibraries() {
  static std::once_flag once;
  std::call_once(once, [] { openblas_set_num_threads(1); });
}

GemmLibrary GemmLibraryFor(DType operands) {
  return operands == DType::kBF16 && DescribeOneDnn().native_bf16 ? GemmLibrary::kOneDnn : GemmLibrary::kOpenBlas;
}

std::string DescribeGemm(DType operands) {
  if (GemmLibraryFor(operands) == GemmLibrary::kOneDnn) {
    return absl::StrFormat("%s (%s)", DescribeOneDnn().version, DescribeOneDnn().isa);
  }
  const BlasInfo blas = DescribeBlas();
  return absl::StrFormat("%s (%s%s)", blas.version, blas.core, operands == DType::kBF16 ? ", as float32" : "");
}

void SerialGemm(int64_t m, int64_t n, int64_t k, double alpha, Matrix<const float> a, Matrix<const float> b,
                double beta, Matrix<float> c) {
  cblas_sgemm(CblasRowMajor, Blas(a.trans), Blas(b.trans), m, n, k, static_cast<float>(alpha), a.data, a.ld, b.data,
              b.ld, static_cast<float>(beta), c.data, c.ld);
}

void SerialGemm(int64_t m, int64_t n, int64_t k, double alpha, Matrix<const double> a, Matrix<const double> b,
                double beta, Matrix<double> c) {
  cblas_dgemm(CblasRowMajor, Blas(a.trans), Blas(b.trans), m, n, k, alpha, a.data, a.ld, b.data, b.ld, beta, c.data,
              c.ld);
}

void Gemm(int64_t m, int64_t n, int64_t k, Matrix<const float> a, Matrix<const float> b, Matrix<float> c,
          std::span<std::byte>, ThreadPool* pool) {
  TiledGemm(m, n, k, a, b, 0, c, pool);
}
void Gemm(int64_t m, int64_t n, int64_t k, Matrix<const double> a, Matrix<const double> b, Matrix<double> c,
          std::span<std::byte>, ThreadPool* pool) {
  TiledGemm(m, n, k, a, b, 0, c, pool);
}
void Gemm(int64_t m, int64_t n, int64_t k, Matrix<const BF16> a, Matrix<const BF16> b, Matrix<BF16> c,
          std::span<std::byte> workspace, ThreadPool* pool, GemmLibrary library) {
  Bf16Gemm(m, n, k, a, b, c, workspace, pool, library);
}
void Gemm(int64_t m, int64_t n, int64_t k, Matrix<const BF16> a, Matrix<const BF16> b, Matrix<float> c,
          std::span<std::byte> workspace, ThreadPool* pool, GemmLibrary library) {
  Bf16Gemm(m, n, k, a, b, c, workspace, pool, library);
}

int64_t GemmWorkspace(DType operands, int64_t m, int64_t n, int64_t k) {
  if (operands != DType::kBF16) return 0;
  m = std::min(m, kPanel), n = std::min(n, kPanel), k = std::min(k, kDepth);
  return (m * k + k * n + m * n) * SizeOf(DType::kF32);
}

}  // namespace strata
