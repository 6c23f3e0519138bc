#pragma once
// What the two attention kernels share (core/ops/attention.h has the maths): blocks of scores, loads and sums of rows
// that may be bf16, and a fixed number of lanes, each with its own workspace, that take the tiles in turn.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/kernels/cpu_util.h"
#include "core/kernels/gemm.h"
#include "core/ops/attention.h"

namespace strata::attention {

inline constexpr int64_t kQueries = 64, kKeys = 128;  // a block
inline constexpr int64_t kLanes = 32;

struct Sizes {
  int64_t B, S, T, H, Hk, D;
  int64_t group, first_q, first_k;  // query heads a kv head; global index of the first local head
  Sizes(const TensorRef& q, const TensorRef& k)
      : B(q.shape[0]),
        S(q.shape[1]),
        T(k.shape[1]),
        H(q.shape[2]),
        Hk(k.shape[2]),
        D(q.shape[3]),
        group(q.global[2] / k.global[2]),
        first_q(q.origin[2]),
        first_k(k.origin[2]) {}
  int64_t KvHead(int64_t h) const { return (first_q + h) / group - first_k; }
  double Scale() const { return 1 / std::sqrt(static_cast<double>(D)); }
};

inline absl::Status CheckHeads(const Sizes& z) {
  if (z.KvHead(0) >= 0 && z.KvHead(z.H - 1) < z.Hk) return absl::OkStatus();
  return absl::InternalError("attention: the kv heads of some local query heads are on another rank");
}

// Rows of one head: `data` points at [0, 0], `ld` elements apart.
template <typename T>
struct Rows {
  T* data;
  int64_t ld;
  Rows From(int64_t row) const { return {data + row * ld, ld}; }
};
template <typename T>
Rows<T> HeadOf(const TensorRef& x, int64_t b, int64_t h) {
  const int64_t N = x.shape[1], heads = x.shape[2], D = x.shape[3];
  return {x.as<T>() + (b * N * heads + h) * D, heads * D};
}

// n rows as a matrix of the arithmetic type; bf16 is converted into `buffer` [n, D].
template <typename T, typename C>
Matrix<const C> Load(Rows<const T> x, int64_t n, int64_t D, C* buffer) {
  if constexpr (std::is_same_v<T, C>) {
    return {x.data, x.ld};
  } else {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t d = 0; d < D; ++d) buffer[i * D + d] = static_cast<C>(x.data[i * x.ld + d]);
    }
    return {buffer, D};
  }
}

// Where n rows are summed up, as zeros: in place, or for bf16 in `buffer` [n, D] until Store().
template <typename T, typename C>
Matrix<C> Zeros(Rows<T> x, int64_t n, int64_t D, C* buffer) {
  Matrix<C> sum = {buffer, D};
  if constexpr (std::is_same_v<T, C>) sum = {x.data, x.ld};
  for (int64_t i = 0; i < n; ++i) std::fill_n(sum.data + i * sum.ld, D, C{0});
  return sum;
}
template <typename T, typename C>
void Store(Matrix<C> sum, int64_t n, int64_t D, Rows<T> x) {
  if constexpr (!std::is_same_v<T, C>) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t d = 0; d < D; ++d) x.data[i * x.ld + d] = static_cast<T>(sum.data[i * sum.ld + d]);
    }
  }
}

template <typename C>
Matrix<const C> Const(const C* data, int64_t ld, Transpose trans = Transpose::kNo) {
  return {data, ld, trans};
}
template <typename C>
Matrix<const C> Transposed(Matrix<const C> x) {
  return {x.data, x.ld, Transpose::kYes};
}

struct Block {  // queries [q, q + nq) against keys [k, k + nk)
  int64_t q, nq, k, nk;
};

// What the queries of one batch row may see.
struct Sight {
  AttentionMask mask;
  const int32_t *pos_q, *pos_k;    // [S], [T]
  const int32_t* start = nullptr;  // [S]; null: from the first key on
  // The positions are operands `first` and `first` + 1, starts the one after, where it is there.
  Sight(const KernelArgs& a, size_t first, int64_t b, int64_t S)
      : mask(AttentionMaskOf(a.op)), pos_q(a.in[first].as<int32_t>()), pos_k(a.in[first + 1].as<int32_t>()) {
    if (a.in.size() > first + 2) start = a.in[first + 2].as<int32_t>() + b * S;
  }
};

enum class Mask : uint8_t { kNone, kSome, kAll };
inline Mask MaskOf(const Sight& see, const Block& b) {
  if (see.mask == AttentionMask::kFull) return Mask::kNone;
  const auto range = [](const int32_t* x, int64_t first, int64_t n) {
    const auto [low, high] = std::minmax_element(x + first, x + first + n);
    return std::pair(*low, *high);
  };
  const auto [min_q, max_q] = range(see.pos_q, b.q, b.nq);
  const auto [min_k, max_k] = range(see.pos_k, b.k, b.nk);
  bool all = min_k > max_q, none = max_k <= min_q;
  if (see.start != nullptr) {
    const auto [min_start, max_start] = range(see.start, b.q, b.nq);
    all |= max_k < min_start, none &= min_k >= max_start;
  }
  return all ? Mask::kAll : none ? Mask::kNone : Mask::kSome;
}

// scores[nq, nk] = scale q k^T, -inf where masked.
template <typename C>
void Scores(const Block& b, const Sizes& z, Mask mask, const Sight& see, Matrix<const C> q, Matrix<const C> k,
            C* scores) {
  SerialGemm(b.nq, b.nk, z.D, z.Scale(), q, Transposed(k), 0, Matrix<C>{scores, b.nk});
  if (mask == Mask::kNone) return;
  for (int64_t i = 0; i < b.nq; ++i) {
    const int32_t last = see.pos_q[b.q + i];
    const int32_t first = see.start == nullptr ? std::numeric_limits<int32_t>::min() : see.start[b.q + i];
    for (int64_t j = 0; j < b.nk; ++j) {
      const int32_t pos = see.pos_k[b.k + j];
      if (pos < first || pos > last) scores[i * b.nk + j] = -std::numeric_limits<C>::infinity();
    }
  }
}

// exp(x - shift) must not see inf - inf.
template <typename C>
C Shift(C x) {
  return x == -std::numeric_limits<C>::infinity() ? C{0} : x;
}

// Hands out pieces of a lane's workspace; with a null base, only counts.
template <typename C>
struct Carver {
  C* base;
  int64_t used = 0;
  C* Take(int64_t n) {
    C* piece = base == nullptr ? nullptr : base + used;
    used += n;
    return piece;
  }
};
// fn(tile, lane) for all tiles.
template <typename Fn>
void ForLanes(ThreadPool* pool, int64_t tiles, const Fn& fn) {
  const int64_t lanes = std::min(kLanes, tiles);
  ParallelFor(pool, lanes, [&](int64_t lane) {
    for (int64_t tile = lane; tile < tiles; tile += lanes) fn(tile, lane);
  });
}

template <typename T>
inline constexpr bool kConverts = !std::is_same_v<T, ComputeType<T>>;

inline Cost AttentionCost(const Op& op, std::span<const TensorRef> in, std::span<const TensorRef> out) {
  const bool backward = in.size() >= 8;
  const TensorRef &q = in[backward ? 1 : 0], &k = in[backward ? 2 : 1];
  const double flops = 2.0 * static_cast<double>(q.shape.elements()) * static_cast<double>(k.shape[1]);
  const double seen = AttentionMaskOf(op) == AttentionMask::kFull ? 2 * flops : flops;
  return {backward ? 2.5 * seen : seen, StreamingCost(op, in, out).bytes};
}

// attention_bwd, in attention_bwd_cpu.cc.
void AddForward(KernelTable& table);
void AddBackward(KernelTable& table);

}  // namespace strata::attention
