// Cross-entropy pieces on the CPU (core/ops/cross_entropy.h has the maths). A tile is one token: a row of logits.
#include <cmath>
#include <limits>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/exp_cpu.h"
#include "core/kernels/sum_cpu.h"
#include "core/ops/vocab_mask.h"

namespace strata {
namespace {

constexpr int64_t kChunk = 512;  // logits of a row handled at a time, on the stack

// Column of token t's target in the local block of logits; -1 where another shard, or none, has it.
int64_t LocalTarget(const TensorRef& z, const TensorRef& targets, int64_t t) {
  const int64_t v = targets.as<int32_t>()[t] - z.origin[2];
  return v >= 0 && v < z.shape[2] ? v : -1;
}

// fn(first, n, e) with e[0, n) = exp(z - m) for the chunks of a row of V logits.
template <typename T, typename Fn>
void ForExpChunks(const T* z, int64_t V, ComputeType<T> m, Fn fn) {
  ComputeType<T> e[kChunk];
  for (int64_t first = 0; first < V; first += kChunk) {
    const int64_t n = std::min(kChunk, V - first);
    for (int64_t i = 0; i < n; ++i) e[i] = static_cast<ComputeType<T>>(z[first + i]) - m;
    ExpInPlace(e, n);
    fn(first, n, e);
  }
}

// fn(token, row of logits) in parallel.
template <typename T, typename Fn>
void ForRows(const KernelArgs& a, Fn fn) {
  const TensorRef& z = a.in[0];
  ParallelFor(a.pool, z.shape[0] * z.shape[1], [&](int64_t t) { fn(t, z.as<T>() + t * z.shape[2]); });
}

template <typename T>
absl::Status VocabMax(const KernelArgs& a) {
  using C = ComputeType<T>;
  ForRows<T>(a, [&](int64_t t, const T* z) {
    C m = -std::numeric_limits<C>::infinity();
    for (int64_t v = 0; v < a.in[0].shape[2]; ++v) m = std::max(m, static_cast<C>(z[v]));
    a.out[0].as<C>()[t] = m;
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status VocabSumExp(const KernelArgs& a) {
  using C = ComputeType<T>;
  ForRows<T>(a, [&](int64_t t, const T* z) {
    C sum = 0;
    ForExpChunks(z, a.in[0].shape[2], a.in[1].as<C>()[t],
                 [&](int64_t, int64_t n, const C* e) { sum += SumOf<C>(n, [&](int64_t i) { return e[i]; }); });
    a.out[0].as<C>()[t] = sum;
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status VocabPick(const KernelArgs& a) {
  using C = ComputeType<T>;
  ForRows<T>(a, [&](int64_t t, const T* z) {
    const int64_t v = LocalTarget(a.in[0], a.in[1], t);
    a.out[0].as<C>()[t] = v < 0 ? C{0} : static_cast<C>(z[v]);
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status VocabSumExpDx(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t V = a.in[0].shape[2];
  ForRows<T>(a, [&](int64_t t, const T* z) {
    T* dz = a.out[0].as<T>() + t * V;
    const C ds = a.in[2].as<C>()[t];
    ForExpChunks(z, V, a.in[1].as<C>()[t], [&](int64_t first, int64_t n, const C* e) {
      for (int64_t i = 0; i < n; ++i) dz[first + i] = static_cast<T>(e[i] * ds);
    });
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status VocabPickDx(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t V = a.in[0].shape[2];
  ForRows<T>(a, [&](int64_t t, const T*) {
    T* dz = a.out[0].as<T>() + t * V;
    std::fill(dz, dz + V, T{});
    const int64_t v = LocalTarget(a.in[0], a.in[1], t);
    if (v >= 0) dz[v] = static_cast<T>(a.in[2].as<C>()[t]);
  });
  return absl::OkStatus();
}

// In float64 and in order, as [B, S] is small beside the logits.
template <typename C>
absl::Status Nll(const KernelArgs& a) {
  double sum = 0;
  for (int64_t t = 0; t < a.in[0].shape.elements(); ++t) {
    const auto in = [&](int i) { return static_cast<double>(a.in[i].as<C>()[t]); };
    sum += in(3) * (in(0) + std::log(in(1)) - in(2));
  }
  a.out[0].as<C>()[0] = static_cast<C>(sum);
  return absl::OkStatus();
}

template <typename C>
absl::Status NllDx(const KernelArgs& a) {
  const C seed = a.in[2].as<C>()[0];
  for (int64_t t = 0; t < a.in[0].shape.elements(); ++t) {
    const C d = seed * a.in[1].as<C>()[t];
    a.out[0].as<C>()[t] = d / a.in[0].as<C>()[t];
    a.out[1].as<C>()[t] = -d;
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status SoftmaxGrad(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t V = a.in[0].shape[2];
  const C seed = a.in[5].as<C>()[0];
  ForRows<T>(a, [&](int64_t t, const T* z) {
    T* dz = a.out[0].as<T>() + t * V;
    const C m = a.in[1].as<C>()[t], scale = seed * a.in[4].as<C>()[t], over_s = scale / a.in[2].as<C>()[t];
    const int64_t target = LocalTarget(a.in[0], a.in[3], t);
    ForExpChunks(z, V, m, [&](int64_t first, int64_t n, C* e) {
      for (int64_t i = 0; i < n; ++i) e[i] *= over_s;
      if (target >= first && target < first + n) e[target - first] -= scale;
      for (int64_t i = 0; i < n; ++i) dz[first + i] = static_cast<T>(e[i]);
    });
  });
  return absl::OkStatus();
}

// y = z, and -infinity (or 0) where the global index is past the classes. Where y is z only the padding is written.
template <typename T>
absl::Status VocabMask(const KernelArgs& a) {
  const TensorRef& z = a.in[0];
  const auto& [classes, to_zero] = VocabMaskAttributesOf(a.op);
  const int64_t columns = z.shape[2], kept = std::clamp(classes - z.origin[2], int64_t{0}, columns);
  const T fill = static_cast<T>(to_zero ? ComputeType<T>{0} : -std::numeric_limits<ComputeType<T>>::infinity());
  ParallelFor(a.pool, z.shape[0] * z.shape[1], [&](int64_t t) {
    const T* in = z.as<const T>() + t * columns;
    T* out = a.out[0].as<T>() + t * columns;
    if (out != in) std::copy_n(in, kept, out);
    std::fill(out + kept, out + columns, fill);
  });
  return absl::OkStatus();
}

}  // namespace

void AddCrossEntropyKernels(KernelTable& table) {
  AddForFloats(table, "vocab_max", []<typename T>() { return Kernel{VocabMax<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "vocab_sum_exp", []<typename T>() { return Kernel{VocabSumExp<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "vocab_pick", []<typename T>() { return Kernel{VocabPick<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "vocab_sum_exp_dx", []<typename T>() {
    return Kernel{VocabSumExpDx<T>, nullptr, StreamingCost};
  });
  AddForFloats(table, "vocab_pick_dx", []<typename T>() { return Kernel{VocabPickDx<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "vocab_mask", []<typename T>() { return Kernel{VocabMask<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "softmax_grad", []<typename T>() { return Kernel{SoftmaxGrad<T>, nullptr, StreamingCost}; });
  table.Add("nll", DType::kF64, {Nll<double>, nullptr, StreamingCost});
  table.Add("nll", DType::kF32, {Nll<float>, nullptr, StreamingCost});
  table.Add("nll_dx", DType::kF64, {NllDx<double>, nullptr, StreamingCost});
  table.Add("nll_dx", DType::kF32, {NllDx<float>, nullptr, StreamingCost});
}

}  // namespace strata
