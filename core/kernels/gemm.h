#pragma once
// Matrix products on the CPU. Row-major: `ld` is the distance between stored rows, in elements.
// Work is cut into tiles that depend on the sizes only, so a result does not depend on the number of threads.
// f64 and f32, by OpenBLAS, accumulate in their own dtype. bf16 accumulates in f32: by oneDNN where the CPU multiplies
// bf16, else operands are converted block by block for OpenBLAS.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/tensor/tensor.h"

namespace strata {

class ThreadPool;

// Keeps OpenBLAS on the calling thread: parallelism is the ThreadPool's. AddLinearKernels() calls it. Thread-safe.
void InitCpuLibraries();

enum class Transpose : uint8_t { kNo, kYes };

template <typename T>
struct Matrix {
  T* data = nullptr;
  int64_t ld = 0;
  Transpose trans = Transpose::kNo;  // kYes: the matrix is the transpose of what is stored
};

// c[m, n] = alpha a[m, k] b[k, n] + beta c, on the calling thread. c is not transposed; beta = 0 ignores its contents.
void SerialGemm(int64_t m, int64_t n, int64_t k, double alpha, Matrix<const float> a, Matrix<const float> b,
                double beta, Matrix<float> c);
void SerialGemm(int64_t m, int64_t n, int64_t k, double alpha, Matrix<const double> a, Matrix<const double> b,
                double beta, Matrix<double> c);

enum class GemmLibrary : uint8_t { kOpenBlas, kOneDnn };
GemmLibrary GemmLibraryFor(DType operands);  // the choice, by what the CPU has
std::string DescribeGemm(DType operands);    // the library chosen: "OpenBLAS 0.3.21 (Zen)", "oneDNN 2.6.3 (AMX)"

// c[m, n] = a[m, k] b[k, n] on the pool (null: the calling thread). The workspace is for bf16 operands; c may then be
// bf16 or float. Sizes of GemmWorkspace, 4-byte aligned. kOneDnn only where OneDnnFacts::runs_bf16 (onednn.h).
void Gemm(int64_t m, int64_t n, int64_t k, Matrix<const float> a, Matrix<const float> b, Matrix<float> c,
          std::span<std::byte> workspace, ThreadPool* pool);
void Gemm(int64_t m, int64_t n, int64_t k, Matrix<const double> a, Matrix<const double> b, Matrix<double> c,
          std::span<std::byte> workspace, ThreadPool* pool);
void Gemm(int64_t m, int64_t n, int64_t k, Matrix<const BF16> a, Matrix<const BF16> b, Matrix<BF16> c,
          std::span<std::byte> workspace, ThreadPool* pool, GemmLibrary library = GemmLibraryFor(DType::kBF16));
void Gemm(int64_t m, int64_t n, int64_t k, Matrix<const BF16> a, Matrix<const BF16> b, Matrix<float> c,
          std::span<std::byte> workspace, ThreadPool* pool, GemmLibrary library = GemmLibraryFor(DType::kBF16));
int64_t GemmWorkspace(DType operands, int64_t m, int64_t n, int64_t k);  // bytes; 0 unless bf16

}  // namespace strata
