// OpenBLAS's float32 products beside oneDNN's, and oneDNN's of bf16 where they run: one thread, on the tiles that a
// rank's micro-batch of bench/llama20m.toml is made of (B 4, S 256, E 384, F 1024, V 8192, 6 heads, 8 layers). A line a
// product: GFLOP/s of the best of 9 rounds; then the seconds of all of them by each.

#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <vector>

#include "core/base/philox.h"
#include "core/kernels/gemm.h"
#include "core/kernels/onednn.h"

extern "C" void omp_set_num_threads(int n);

namespace strata {
namespace {

struct Product {
  const char* name;
  int64_t m, n, k;
  Transpose a, b;
  int64_t count;
  int64_t lda, ldb, ldc;  // of the whole matrices
};

constexpr Transpose kNo = Transpose::kNo, kYes = Transpose::kYes;
constexpr int64_t kLayers = 8, kBlocks = kLayers * 4 * 6 * 6;  // blocks of scores, of 4 rows x 6 heads
// Tiles as TileRows in core/kernels/gemm.cc cuts them; attention's blocks of 64 queries and 128 keys, 6 of them seen.
constexpr Product kProducts[] = {
    {"q,k,v,o", 128, 384, 384, kNo, kYes, 4 * kLayers * 8, 384, 384, 384},
    {"q,k,v,o dx", 128, 384, 384, kNo, kNo, 4 * kLayers * 8, 384, 384, 384},
    {"q,k,v,o dw", 32, 384, 1024, kYes, kNo, 4 * kLayers * 12, 384, 384, 384},
    {"gate,up", 256, 512, 384, kNo, kYes, 2 * kLayers * 8, 384, 384, 1024},
    {"gate,up dx", 128, 384, 1024, kNo, kNo, 2 * kLayers * 8, 1024, 384, 384},
    {"gate,up dw", 128, 384, 1024, kYes, kNo, 2 * kLayers * 8, 1024, 384, 384},
    {"down", 128, 384, 1024, kNo, kYes, kLayers * 8, 1024, 1024, 384},
    {"down dx", 256, 512, 384, kNo, kNo, kLayers * 8, 384, 1024, 1024},
    {"down dw", 64, 512, 1024, kYes, kNo, kLayers * 12, 384, 1024, 1024},
    {"head", 256, 512, 384, kNo, kYes, 2 * 2 * 32, 384, 384, 8192},
    {"head dx", 64, 384, 8192, kNo, kNo, 2 * 8, 8192, 384, 384},
    {"head dw", 256, 384, 512, kYes, kNo, 2 * 32, 8192, 384, 384},
    {"scores", 64, 128, 64, kNo, kYes, kBlocks * 3, 384, 384, 128},
    {"o, dq", 64, 64, 128, kNo, kNo, kBlocks * 2, 128, 384, 384},
    {"dk, dv", 128, 64, 64, kYes, kNo, kBlocks * 2, 128, 384, 384},
};

double Gflop(const Product& p) { return 2e-9 * static_cast<double>(p.m * p.n * p.k); }

// GFLOP/s of the best of 9 rounds.
double Rate(const Product& p, const std::function<void()>& multiply) {
  using Clock = std::chrono::steady_clock;
  const int calls = std::max(1, static_cast<int>(0.2 / Gflop(p)));
  multiply();
  double best = 1e9;
  for (int round = 0; round < 9; ++round) {
    const auto start = Clock::now();
    for (int i = 0; i < calls; ++i) multiply();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count() / calls);
  }
  return Gflop(p) / best;
}

void Run() {
  const OneDnnFacts& onednn = DescribeOneDnn();
  std::vector<float> a(1 << 23), b(1 << 23), c(1 << 22);
  std::vector<BF16> a16(a.size()), b16(b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const PhiloxBlock r = Philox(1, 2, i);
    a[i] = static_cast<float>(PhiloxUniform(r[0]) - 0.5), b[i] = static_cast<float>(PhiloxUniform(r[1]) - 0.5);
    a16[i] = BF16(a[i]), b16[i] = BF16(b[i]);
  }
  const auto trans = [](Transpose t) { return t == kNo ? 'N' : 'T'; };
  double seconds[3] = {};
  std::printf("GFLOP/s, one thread  %s  %s (%s)\n", DescribeGemm(DType::kF32).c_str(), onednn.version.c_str(),
              onednn.isa.c_str());
  for (const Product& p : kProducts) {
    const Matrix<float> out{c.data(), p.ldc};
    double rates[3] = {};
    rates[0] = Rate(p, [&] {
      SerialGemm(p.m, p.n, p.k, 1, Matrix<const float>{a.data(), p.lda, p.a}, Matrix<const float>{b.data(), p.ldb, p.b},
                 0, out);
    });
    rates[1] = Rate(p, [&] {
      dnnl_sgemm(trans(p.a), trans(p.b), p.m, p.n, p.k, 1, a.data(), p.lda, b.data(), p.ldb, 0, c.data(), p.ldc);
    });
    if (onednn.runs_bf16) {
      rates[2] = Rate(p, [&] {
        OneDnnGemm(p.m, p.n, p.k, Matrix<const BF16>{a16.data(), p.lda, p.a},
                   Matrix<const BF16>{b16.data(), p.ldb, p.b}, 0, out);
      });
    }
    std::printf("%-11s %4lld x %3lld x %4lld %s%s  OpenBLAS f32 %6.1f  oneDNN f32 %6.1f  bf16 %6.1f\n", p.name,
                static_cast<long long>(p.m), static_cast<long long>(p.n), static_cast<long long>(p.k),
                p.a == kYes ? "T" : "N", p.b == kYes ? "T" : "N", rates[0], rates[1], rates[2]);
    for (int i = 0; i < 3; ++i) seconds[i] += rates[i] > 0 ? Gflop(p) * static_cast<double>(p.count) / rates[i] : 0;
  }
  std::printf(
      "all products of a micro-batch: OpenBLAS f32 %.3f s, oneDNN f32 %.3f s, bf16 %.3f s (0: does not run here)\n",
      seconds[0], seconds[1], seconds[2]);
}

}  // namespace
}  // namespace strata

int main() {
  strata::InitCpuLibraries();
  omp_set_num_threads(1);
  strata::Run();
  return 0;
}
