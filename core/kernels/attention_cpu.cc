// Attention on the CPU (core/ops/attention.h has the maths). Forward: a tile is one block of queries of one head; it walks
// the blocks of keys with an online softmax. Backward: a tile is one kv head, which sums its dk and dv over query heads and
// blocks of queries in order; the probabilities of a block are made again from lse:
//   p = exp(s - lse),  dv += p^T do,  ds = p * (do v^T - rowsum(do * o)) / sqrt(D),  dq += ds k,  dk += ds^T q.
// Blocks that no query of theirs may see are skipped. Tiles share a fixed number of lanes, each with its own workspace.
#include <cmath>
#include <limits>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/exp_cpu.h"
#include "core/kernels/gemm.h"
#include "core/kernels/sum_cpu.h"

namespace strata {
namespace {

constexpr int64_t kQueries = 64, kKeys = 128;  // a block
constexpr int64_t kLanes = 32;

struct Sizes {
  int64_t B, S, T, H, Hk, D;
  int64_t group, first_q, first_k;  // query heads a kv head; global index of the first local head
  Sizes(const TensorRef& q, const TensorRef& k)
      : B(q.shape[0]), S(q.shape[1]), T(k.shape[1]), H(q.shape[2]), Hk(k.shape[2]), D(q.shape[3]),
        group(q.global[2] / k.global[2]), first_q(q.origin[2]), first_k(k.origin[2]) {}
  int64_t KvHead(int64_t h) const { return (first_q + h) / group - first_k; }
  double Scale() const { return 1 / std::sqrt(static_cast<double>(D)); }
};

absl::Status CheckHeads(const Sizes& z) {
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

enum class Mask : uint8_t { kNone, kSome, kAll };
Mask MaskOf(const Block& b, const int32_t* pos_q, const int32_t* pos_k) {
  const auto [min_q, max_q] = std::minmax_element(pos_q + b.q, pos_q + b.q + b.nq);
  const auto [min_k, max_k] = std::minmax_element(pos_k + b.k, pos_k + b.k + b.nk);
  return *min_k > *max_q ? Mask::kAll : *max_k > *min_q ? Mask::kSome : Mask::kNone;
}

// scores[nq, nk] = scale q k^T, -inf where masked.
template <typename C>
void Scores(const Block& b, const Sizes& z, Mask mask, const int32_t* pos_q, const int32_t* pos_k, Matrix<const C> q,
            Matrix<const C> k, C* scores) {
  SerialGemm(b.nq, b.nk, z.D, z.Scale(), q, Transposed(k), 0, Matrix<C>{scores, b.nk});
  if (mask == Mask::kNone) return;
  for (int64_t i = 0; i < b.nq; ++i) {
    for (int64_t j = 0; j < b.nk; ++j) {
      if (pos_k[b.k + j] > pos_q[b.q + i]) scores[i * b.nk + j] = -std::numeric_limits<C>::infinity();
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
constexpr bool kConverts = !std::is_same_v<T, ComputeType<T>>;

// ---- forward

template <typename T>
struct ForwardScratch {
  using C = ComputeType<T>;
  C *scores, *sum, *max, *total, *decay, *q = nullptr, *k = nullptr, *v = nullptr;
  int64_t size;
  ForwardScratch(const Sizes& z, C* base) {
    Carver<C> carve{base};
    scores = carve.Take(kQueries * kKeys);
    sum = carve.Take(kQueries * z.D);
    max = carve.Take(kQueries);
    total = carve.Take(kQueries);
    decay = carve.Take(kQueries);
    if (kConverts<T>) q = carve.Take(kQueries * z.D), k = carve.Take(kKeys * z.D), v = carve.Take(kKeys * z.D);
    size = carve.used;
  }
};

// Folds a block of scores into the running softmax: scores become probabilities times exp(max), `sum` is rescaled.
template <typename T>
void Fold(const Block& b, int64_t D, const ForwardScratch<T>& w) {
  using C = ComputeType<T>;
  for (int64_t i = 0; i < b.nq; ++i) {
    C* row = w.scores + i * b.nk;
    const C old = w.max[i];
    C max = old;
    for (int64_t j = 0; j < b.nk; ++j) max = std::max(max, row[j]);
    w.max[i] = max;
    w.decay[i] = old - Shift(max);
    for (int64_t j = 0; j < b.nk; ++j) row[j] -= Shift(max);
  }
  ExpInPlace(w.scores, b.nq * b.nk);
  ExpInPlace(w.decay, b.nq);
  for (int64_t i = 0; i < b.nq; ++i) {
    const C* row = w.scores + i * b.nk;
    w.total[i] = w.total[i] * w.decay[i] + SumOf<C>(b.nk, [&](int64_t j) { return row[j]; });
    for (int64_t d = 0; d < D; ++d) w.sum[i * D + d] *= w.decay[i];
  }
}

template <typename T>
void ForwardTile(const KernelArgs& a, const Sizes& z, int64_t b, int64_t h, int64_t q0, const ForwardScratch<T>& w) {
  using C = ComputeType<T>;
  const int64_t nq = std::min(kQueries, z.S - q0);
  const int32_t *pos_q = a.in[3].as<int32_t>(), *pos_k = a.in[4].as<int32_t>();
  const auto q = Load(HeadOf<const T>(a.in[0], b, h).From(q0), nq, z.D, w.q);
  const auto k_head = HeadOf<const T>(a.in[1], b, z.KvHead(h)), v_head = HeadOf<const T>(a.in[2], b, z.KvHead(h));
  std::fill_n(w.sum, nq * z.D, C{0});
  std::fill_n(w.total, nq, C{0});
  std::fill_n(w.max, nq, -std::numeric_limits<C>::infinity());
  for (int64_t k0 = 0; k0 < z.T; k0 += kKeys) {
    const Block block = {q0, nq, k0, std::min(kKeys, z.T - k0)};
    const Mask mask = MaskOf(block, pos_q, pos_k);
    if (mask == Mask::kAll) continue;
    const auto k = Load(k_head.From(k0), block.nk, z.D, w.k), v = Load(v_head.From(k0), block.nk, z.D, w.v);
    Scores(block, z, mask, pos_q, pos_k, q, k, w.scores);
    Fold(block, z.D, w);
    SerialGemm(nq, z.D, block.nk, 1, Const(w.scores, block.nk), v, 1, Matrix<C>{w.sum, z.D});
  }
  const Rows<T> o = HeadOf<T>(a.out[0], b, h).From(q0);
  for (int64_t i = 0; i < nq; ++i) {
    const C over = w.total[i] == 0 ? C{0} : 1 / w.total[i];
    for (int64_t d = 0; d < z.D; ++d) o.data[i * o.ld + d] = static_cast<T>(w.sum[i * z.D + d] * over);
    a.out[1].as<C>()[(b * z.S + q0 + i) * z.H + h] = w.max[i] + std::log(w.total[i]);
  }
}

int64_t NumForwardTiles(const Sizes& z) { return z.B * z.H * ((z.S + kQueries - 1) / kQueries); }

template <typename T>
int64_t ForwardWorkspace(const Op&, std::span<const TensorRef> in) {
  const Sizes z(in[0], in[1]);
  return std::min(kLanes, NumForwardTiles(z)) * ForwardScratch<T>(z, nullptr).size *
         static_cast<int64_t>(sizeof(ComputeType<T>));
}

template <typename T>
absl::Status Forward(const KernelArgs& a) {
  using C = ComputeType<T>;
  const Sizes z(a.in[0], a.in[1]);
  if (absl::Status s = CheckHeads(z); !s.ok()) return s;
  const int64_t tiles = NumForwardTiles(z), heads = z.B * z.H, lane_size = ForwardScratch<T>(z, nullptr).size;
  C* workspace = reinterpret_cast<C*>(a.workspace.data());
  ForLanes(a.pool, tiles, [&](int64_t tile, int64_t lane) {
    const int64_t last_first = tiles - 1 - tile;  // late queries see most keys
    const int64_t head = last_first % heads;
    ForwardTile(a, z, head / z.H, head % z.H, last_first / heads * kQueries, ForwardScratch<T>(z, workspace + lane * lane_size));
  });
  return absl::OkStatus();
}

// ---- backward

template <typename T>
struct BackwardScratch {
  using C = ComputeType<T>;
  C *p, *ds, *delta, *d_o = nullptr, *q = nullptr, *k = nullptr, *v = nullptr, *dq = nullptr, *dk = nullptr, *dv = nullptr;
  int64_t size;
  BackwardScratch(const Sizes& z, C* base) {
    Carver<C> carve{base};
    p = carve.Take(kQueries * kKeys);
    ds = carve.Take(kQueries * kKeys);
    delta = carve.Take(kQueries);
    if (kConverts<T>) {
      d_o = carve.Take(kQueries * z.D), q = carve.Take(kQueries * z.D), dq = carve.Take(kQueries * z.D);
      k = carve.Take(kKeys * z.D), v = carve.Take(kKeys * z.D);
      dk = carve.Take(z.T * z.D), dv = carve.Take(z.T * z.D);
    }
    size = carve.used;
  }
};

template <typename C>
struct KvSums {
  Matrix<C> dk, dv;  // [T, D]
};

// One block of queries of one head: writes its dq, adds to the sums of its kv head.
template <typename T, typename C>
void BackwardQueries(const KernelArgs& a, const Sizes& z, int64_t b, int64_t h, int64_t q0, const KvSums<C>& sums,
                     const BackwardScratch<T>& w) {
  const int64_t nq = std::min(kQueries, z.S - q0), D = z.D;
  const int32_t *pos_q = a.in[6].as<int32_t>(), *pos_k = a.in[7].as<int32_t>();
  const auto d_o = Load(HeadOf<const T>(a.in[0], b, h).From(q0), nq, D, w.d_o);
  const auto q = Load(HeadOf<const T>(a.in[1], b, h).From(q0), nq, D, w.q);
  const auto k_head = HeadOf<const T>(a.in[2], b, z.KvHead(h)), v_head = HeadOf<const T>(a.in[3], b, z.KvHead(h));
  const Rows<const T> o = HeadOf<const T>(a.in[4], b, h).From(q0);
  const Rows<T> dq_out = HeadOf<T>(a.out[0], b, h).From(q0);
  const Matrix<C> dq = Zeros(dq_out, nq, D, w.dq);
  for (int64_t i = 0; i < nq; ++i) {
    w.delta[i] = SumOf<C>(D, [&](int64_t d) { return d_o.data[i * d_o.ld + d] * static_cast<C>(o.data[i * o.ld + d]); });
  }
  for (int64_t k0 = 0; k0 < z.T; k0 += kKeys) {
    const Block block = {q0, nq, k0, std::min(kKeys, z.T - k0)};
    const int64_t nk = block.nk;
    const Mask mask = MaskOf(block, pos_q, pos_k);
    if (mask == Mask::kAll) continue;
    const auto k = Load(k_head.From(k0), nk, D, w.k), v = Load(v_head.From(k0), nk, D, w.v);
    Scores(block, z, mask, pos_q, pos_k, q, k, w.p);
    for (int64_t i = 0; i < nq; ++i) {
      const C lse = Shift(a.in[5].as<C>()[(b * z.S + q0 + i) * z.H + h]);
      for (int64_t j = 0; j < nk; ++j) w.p[i * nk + j] -= lse;
    }
    ExpInPlace(w.p, nq * nk);
    SerialGemm(nk, D, nq, 1, Const(w.p, nk, Transpose::kYes), d_o, 1, Matrix<C>{sums.dv.data + k0 * sums.dv.ld, sums.dv.ld});
    SerialGemm(nq, nk, D, 1, d_o, Transposed(v), 0, Matrix<C>{w.ds, nk});
    const C scale = static_cast<C>(z.Scale());
    for (int64_t i = 0; i < nq; ++i) {
      for (int64_t j = i * nk; j < (i + 1) * nk; ++j) w.ds[j] = w.p[j] * (w.ds[j] - w.delta[i]) * scale;
    }
    SerialGemm(nq, D, nk, 1, Const(w.ds, nk), k, 1, dq);
    SerialGemm(nk, D, nq, 1, Const(w.ds, nk, Transpose::kYes), q, 1, Matrix<C>{sums.dk.data + k0 * sums.dk.ld, sums.dk.ld});
  }
  Store(dq, nq, D, dq_out);
}

template <typename T>
int64_t BackwardWorkspace(const Op&, std::span<const TensorRef> in) {
  const Sizes z(in[1], in[2]);
  return std::min(kLanes, z.B * z.Hk) * BackwardScratch<T>(z, nullptr).size * static_cast<int64_t>(sizeof(ComputeType<T>));
}

template <typename T>
absl::Status Backward(const KernelArgs& a) {
  using C = ComputeType<T>;
  const Sizes z(a.in[1], a.in[2]);
  if (absl::Status s = CheckHeads(z); !s.ok()) return s;
  C* workspace = reinterpret_cast<C*>(a.workspace.data());
  const int64_t lane_size = BackwardScratch<T>(z, nullptr).size;
  ForLanes(a.pool, z.B * z.Hk, [&](int64_t tile, int64_t lane) {
    const int64_t b = tile / z.Hk, kv = tile % z.Hk;
    const BackwardScratch<T> w(z, workspace + lane * lane_size);
    const Rows<T> dk = HeadOf<T>(a.out[1], b, kv), dv = HeadOf<T>(a.out[2], b, kv);
    const KvSums<C> sums = {Zeros(dk, z.T, z.D, w.dk), Zeros(dv, z.T, z.D, w.dv)};
    for (int64_t h = 0; h < z.H; ++h) {
      if (z.KvHead(h) != kv) continue;
      for (int64_t q0 = 0; q0 < z.S; q0 += kQueries) BackwardQueries(a, z, b, h, q0, sums, w);
    }
    Store(sums.dk, z.T, z.D, dk);
    Store(sums.dv, z.T, z.D, dv);
  });
  return absl::OkStatus();
}

Cost AttentionCost(const Op& op, std::span<const TensorRef> in, std::span<const TensorRef> out) {
  const bool backward = in.size() == 8;
  const TensorRef &q = in[backward ? 1 : 0], &k = in[backward ? 2 : 1];
  const double flops = 2.0 * static_cast<double>(q.shape.elements()) * static_cast<double>(k.shape[1]);
  return {backward ? 2.5 * flops : flops, StreamingCost(op, in, out).bytes};
}

}  // namespace

void AddAttentionKernels(KernelTable& table) {
  InitCpuLibraries();
  AddForFloats(table, "attention", []<typename T>() { return Kernel{Forward<T>, ForwardWorkspace<T>, AttentionCost}; });
  AddForFloats(table, "attention_bwd", []<typename T>() { return Kernel{Backward<T>, BackwardWorkspace<T>, AttentionCost}; });
}

}  // namespace strata
