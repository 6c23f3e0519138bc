// Products with element-wise work on their results (core/ops/fused.h), with M rows: gu[M, 2 F] = x (gate | up)^T and
// h = silu(gate) up; dh = dy W_down and the gradient of gu; qkv[M, T D] = x (q | k | v)^T with the heads of q and k turned; pre[M, F] =
// x W^T + b and h = gelu(pre), and the gradient of pre. The element-wise part reads the product rounded to its dtype.

#include <algorithm>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/gelu_cpu.h"
#include "core/kernels/gemm.h"
#include "core/kernels/product_cost.h"
#include "core/kernels/rope_cpu.h"
#include "core/kernels/swiglu_cpu.h"
#include "core/ops/fused.h"

namespace strata {
namespace {

int64_t Rows(const TensorRef& x) { return x.shape.elements() / x.shape.back(); }

// y[M, N] = x W^T, or x W, into rows that are `pitch` apart.
template <typename T>
void Multiply(const KernelArgs& a, const TensorRef& x, const TensorRef& w, Transpose trans, T* y, int64_t pitch) {
  const int64_t n = w.shape[trans == Transpose::kYes ? 0 : 1], k = x.shape.back();
  Gemm(Rows(x), n, k, Matrix<const T>{x.as<const T>(), k}, Matrix<const T>{w.as<const T>(), w.shape[1], trans},
       Matrix<T>{y, pitch}, a.workspace, a.pool);
}

template <typename Fn>  // fn(row), in tiles of about kFlatTile elements
void ForRows(ThreadPool* pool, int64_t rows, int64_t columns, const Fn& fn) {
  ForTiles(pool, rows, std::max<int64_t>(1, kFlatTile / columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) fn(row);
  });
}

template <typename T>
absl::Status RunSwiglu(const KernelArgs& a) {  // x, gate, up -> gu, h
  const int64_t F = a.out[1].shape.back();
  T *gu = a.out[0].as<T>(), *h = a.out[1].as<T>();
  Multiply(a, a.in[0], a.in[1], Transpose::kYes, gu, 2 * F);
  Multiply(a, a.in[0], a.in[2], Transpose::kYes, gu + F, 2 * F);
  ForRows(a.pool, Rows(a.out[1]), F, [=](int64_t row) {
    const T* gate = gu + row * 2 * F;
    SwigluSpan(gate, gate + F, h + row * F, F);
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunDxSwiglu(const KernelArgs& a) {  // dy, down, gu -> dgu
  const int64_t F = a.in[1].shape[1];
  const T* gu = a.in[2].as<const T>();
  T* dgu = a.out[0].as<T>();
  Multiply(a, a.in[0], a.in[1], Transpose::kNo, dgu + F, 2 * F);  // dh, where the gradient of up takes its place
  ForRows(a.pool, Rows(a.in[0]), F, [=](int64_t row) {
    const T* gate = gu + row * 2 * F;
    T* dgate = dgu + row * 2 * F;
    SwigluDxSpan(dgate + F, gate, gate + F, dgate, dgate + F, F);
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunBiasGelu(const KernelArgs& a) {  // x, w, bias -> pre, h
  using C = ComputeType<T>;
  const int64_t F = a.out[0].shape.back();
  T *const pre = a.out[0].as<T>(), *const h = a.out[1].as<T>();
  const T* const bias = a.in[2].as<const T>();
  Multiply(a, a.in[0], a.in[1], Transpose::kYes, pre, F);
  const GeluKind kind = FusedAttributesOf(a.op).gelu;
  ForRows(a.pool, Rows(a.in[0]), F, [=](int64_t row) {
    T* const y = pre + row * F;
    for (int64_t i = 0; i < F; ++i) y[i] = static_cast<T>(static_cast<C>(y[i]) + static_cast<C>(bias[i]));
    GeluSpan(kind, y, h + row * F, F);
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunDxGelu(const KernelArgs& a) {  // dy, w, pre -> dpre
  const int64_t F = a.in[1].shape[1];
  const T* const pre = a.in[2].as<const T>();
  T* const dpre = a.out[0].as<T>();
  Multiply(a, a.in[0], a.in[1], Transpose::kNo, dpre, F);
  const GeluKind kind = FusedAttributesOf(a.op).gelu;
  ForTiles(a.pool, a.out[0].shape.elements(), kFlatTile,
           [=](int64_t begin, int64_t end) { GeluDxSpan(kind, dpre + begin, pre + begin, dpre + begin, end - begin); });
  return absl::OkStatus();
}

// Tables of angles before what the product needs.
template <typename T>
int64_t TableBytes(const Op& op, std::span<const TensorRef> in) {
  return RopeTableBytes<ComputeType<T>>(in[1].shape.elements(), FusedAttributesOf(op).head_dim);
}

template <typename T>
absl::Status RunRope(const KernelArgs& a) {  // x, positions, q, k, v -> qkv
  using C = ComputeType<T>;
  const FusedAttributes& attributes = FusedAttributesOf(a.op);
  const int64_t width = a.out[0].shape[2] * a.out[0].shape[3];
  const int64_t turned = (a.in[2].shape[0] + a.in[3].shape[0]) / attributes.head_dim;
  const RopeTable<C> table =
      MakeRopeTable<C>(attributes.rope, a.in[1], attributes.head_dim, a.workspace.data(), a.pool);
  KernelArgs product = a;
  product.workspace = a.workspace.subspan(TableBytes<T>(a.op, a.in));
  T* const qkv = a.out[0].as<T>();
  T* at = qkv;
  for (const TensorRef& w : a.in.subspan(2)) {
    Multiply(product, a.in[0], w, Transpose::kYes, at, width);
    at += w.shape[0];
  }
  ParallelFor(a.pool, Rows(a.in[0]),
              [&](int64_t token) { TurnHeads(table, token, turned, qkv + token * width, qkv + token * width); });
  return absl::OkStatus();
}

template <typename T>
int64_t RopeWorkspace(const Op& op, std::span<const TensorRef> in) {
  int64_t product = 0;
  for (const TensorRef& w : in.subspan(2)) {
    product = std::max(product, GemmWorkspace(in[0].dtype, Rows(in[0]), w.shape[0], w.shape[1]));
  }
  return TableBytes<T>(op, in) + product;
}

template <int kWeight>  // of a weight [N, K] whose other dim the product has
int64_t Workspace(const Op&, std::span<const TensorRef> in) {
  const Shape& w = in[1].shape;
  return GemmWorkspace(in[0].dtype, Rows(in[0]), w[kWeight], w[1 - kWeight]);
}

}  // namespace

void AddLinearFusedKernels(KernelTable& table) {
  AddForFloats(table, "linear_swiglu", []<typename T>() { return Kernel{RunSwiglu<T>, Workspace<0>, OpCost}; });
  AddForFloats(table, "linear_dx_swiglu", []<typename T>() { return Kernel{RunDxSwiglu<T>, Workspace<1>, OpCost}; });
  AddForFloats(table, "linear_bias_gelu", []<typename T>() { return Kernel{RunBiasGelu<T>, Workspace<0>, OpCost}; });
  AddForFloats(table, "linear_dx_gelu", []<typename T>() { return Kernel{RunDxGelu<T>, Workspace<1>, OpCost}; });
  AddForFloats(table, "linear_rope", []<typename T>() { return Kernel{RunRope<T>, RopeWorkspace<T>, OpCost}; });
}

}  // namespace strata
