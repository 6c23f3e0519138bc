// y[t] = W[token[t]];  dW[v] = sum of dy[t] over token[t] = v, in the order of t; where it is to be rounded, in the workspace.

#include <algorithm>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/ops/embedding.h"

namespace strata {
namespace {

constexpr int64_t kTokenTile = 64, kColumnTile = 64;

template <typename T>
absl::Status RunEmbedding(const KernelArgs& a) {
  const int32_t* tokens = a.in[0].as<const int32_t>();
  const T* table = a.in[1].as<const T>();
  T* y = a.out[0].as<T>();
  const int64_t rows = a.in[1].shape[0], width = a.in[1].shape[1], first = a.in[1].origin[0];
  ForTiles(a.pool, a.in[0].shape.elements(), kTokenTile, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = tokens[t] - first;
      if (row >= 0 && row < rows) {
        std::copy_n(table + row * width, width, y + t * width);
      } else {
        std::fill_n(y + t * width, width, T{});
      }
    }
  });
  return absl::OkStatus();
}

// A tile is a range of columns: every tile meets the tokens in the same order, and no two write the same element.
template <typename T>
absl::Status RunEmbeddingDw(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int32_t* tokens = a.in[0].as<const int32_t>();
  const T* dy = a.in[1].as<const T>();
  const bool rounds = EmbeddingDwSpecOf(a.op).rounded;
  C* dw = rounds ? reinterpret_cast<C*>(a.workspace.data()) : a.out[0].as<C>();
  const int64_t num_tokens = a.in[0].shape.elements();
  const int64_t rows = a.out[0].shape[0], width = a.out[0].shape[1], first = a.out[0].origin[0];
  ForTiles(a.pool, width, kColumnTile, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r) std::fill(dw + r * width + begin, dw + r * width + end, C(0));
    for (int64_t t = 0; t < num_tokens; ++t) {
      const int64_t row = tokens[t] - first;
      if (row < 0 || row >= rows) continue;
      for (int64_t c = begin; c < end; ++c) dw[row * width + c] += static_cast<C>(dy[t * width + c]);
    }
    if (!rounds) return;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = begin; c < end; ++c) a.out[0].as<T>()[r * width + c] = static_cast<T>(dw[r * width + c]);
    }
  });
  return absl::OkStatus();
}

template <typename T>
int64_t DwWorkspace(const Op& op, std::span<const TensorRef> in) {
  const EmbeddingDwSpec& spec = EmbeddingDwSpecOf(op);
  if (!spec.rounded) return 0;
  const int64_t rows = spec.vocab > 0 ? spec.vocab : in[2].shape[0];
  return rows * in[1].shape.back() * static_cast<int64_t>(sizeof(ComputeType<T>));
}

}  // namespace

void AddEmbeddingKernels(KernelTable& table) {
  AddForFloats(table, "embedding", []<typename T>() { return Kernel{RunEmbedding<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "embedding_dw", []<typename T>() {
    return Kernel{RunEmbeddingDw<T>, DwWorkspace<T>, StreamingCost};
  });
}

}  // namespace strata
