// With M rows: y[M, N] = x[M, K] W^T;  dx[M, K] = dy[M, N] W;  dW[N, K] = dy^T x.

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/gemm.h"

namespace strata {
namespace {

constexpr Transpose kNo = Transpose::kNo, kYes = Transpose::kYes;

int64_t Rows(const TensorRef& x) { return x.shape.elements() / x.shape.back(); }

// The product's sizes [m, n, k] and how its operands are stored: all that the three ops differ in.
struct Product {
  int64_t m, n, k;
  Transpose a, b;
};
using MakeProduct = Product (*)(const TensorRef& a, const TensorRef& b);
Product Forward(const TensorRef& x, const TensorRef& w) { return {Rows(x), w.shape[0], x.shape.back(), kNo, kYes}; }
Product Dx(const TensorRef& dy, const TensorRef& w) { return {Rows(dy), w.shape[1], dy.shape.back(), kNo, kNo}; }
Product Dw(const TensorRef& dy, const TensorRef& x) { return {dy.shape.back(), x.shape.back(), Rows(dy), kYes, kNo}; }

template <typename T, typename Out, MakeProduct kMake>
absl::Status Run(const KernelArgs& args) {
  const TensorRef &a = args.in[0], &b = args.in[1];
  const Product p = kMake(a, b);
  Gemm(p.m, p.n, p.k, Matrix<const T>{a.as<const T>(), a.shape.back(), p.a},
       Matrix<const T>{b.as<const T>(), b.shape.back(), p.b}, Matrix<Out>{args.out[0].as<Out>(), p.n}, args.workspace,
       args.pool);
  return absl::OkStatus();
}

template <typename T>
absl::Status RunDw(const KernelArgs& args) {
  if (args.out[0].dtype == DType::kBF16) return Run<T, T, Dw>(args);
  return Run<T, ComputeType<T>, Dw>(args);
}

template <MakeProduct kMake>
int64_t Workspace(const Op&, std::span<const TensorRef> in) {
  const Product p = kMake(in[0], in[1]);
  return GemmWorkspace(in[0].dtype, p.m, p.n, p.k);
}

template <MakeProduct kMake>
Cost ProductCost(const Op& op, std::span<const TensorRef> in, std::span<const TensorRef> out) {
  const Product p = kMake(in[0], in[1]);
  return {2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k),
          StreamingCost(op, in, out).bytes};
}

}  // namespace

void AddLinearKernels(KernelTable& table) {
  InitCpuLibraries();
  AddForFloats(table, "linear", []<typename T>() {
    return Kernel{Run<T, T, Forward>, Workspace<Forward>, ProductCost<Forward>};
  });
  AddForFloats(table, "linear_dx", []<typename T>() { return Kernel{Run<T, T, Dx>, Workspace<Dx>, ProductCost<Dx>}; });
  AddForFloats(table, "linear_dw", []<typename T>() { return Kernel{RunDw<T>, Workspace<Dw>, ProductCost<Dw>}; });
}

}  // namespace strata
