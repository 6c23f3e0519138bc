// Attention on the CPU, forward. A tile is one block of queries of one head; it walks the blocks of keys with an online
// softmax. Blocks in which no query may see a key are skipped.
#include "core/kernels/attention_cpu.h"

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/exp_cpu.h"
#include "core/kernels/sum_cpu.h"

namespace strata {
namespace attention {
namespace {

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
  const Sight see(a, 3, b, z.S);
  const auto q = Load(HeadOf<const T>(a.in[0], b, h).From(q0), nq, z.D, w.q);
  const auto k_head = HeadOf<const T>(a.in[1], b, z.KvHead(h)), v_head = HeadOf<const T>(a.in[2], b, z.KvHead(h));
  std::fill_n(w.sum, nq * z.D, C{0});
  std::fill_n(w.total, nq, C{0});
  std::fill_n(w.max, nq, -std::numeric_limits<C>::infinity());
  for (int64_t k0 = 0; k0 < z.T; k0 += kKeys) {
    const Block block = {q0, nq, k0, std::min(kKeys, z.T - k0)};
    const Mask mask = MaskOf(see, block);
    if (mask == Mask::kAll) continue;
    const auto k = Load(k_head.From(k0), block.nk, z.D, w.k), v = Load(v_head.From(k0), block.nk, z.D, w.v);
    Scores(block, z, mask, see, q, k, w.scores);
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
    ForwardTile(a, z, head / z.H, head % z.H, last_first / heads * kQueries,
                ForwardScratch<T>(z, workspace + lane * lane_size));
  });
  return absl::OkStatus();
}

}  // namespace

void AddForward(KernelTable& table) {
  AddForFloats(table, "attention", []<typename T>() { return Kernel{Forward<T>, ForwardWorkspace<T>, AttentionCost}; });
}

}  // namespace attention

void AddAttentionKernels(KernelTable& table) {
  InitCpuLibraries();
  attention::AddForward(table);
  attention::AddBackward(table);
}

}  // namespace strata
