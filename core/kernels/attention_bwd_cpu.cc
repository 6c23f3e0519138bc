// Attention on the CPU, backward. A tile is one kv head, which sums its dk and dv over query heads and blocks of
// queries in order; the probabilities of a block are made again from lse:
//   p = exp(s - lse),  dv += p^T do,  ds = p * (do v^T - rowsum(do * o)) / sqrt(D),  dq += ds k,  dk += ds^T q.
#include "core/kernels/attention_cpu.h"
#include "core/kernels/exp_cpu.h"
#include "core/kernels/sum_cpu.h"

namespace strata::attention {
namespace {

template <typename T>
struct BackwardScratch {
  using C = ComputeType<T>;
  C *p, *ds, *delta, *d_o = nullptr, *q = nullptr, *k = nullptr, *v = nullptr, *dq = nullptr, *dk = nullptr,
                     *dv = nullptr;
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
  const Sight see(a, 6, b, z.S);
  const auto d_o = Load(HeadOf<const T>(a.in[0], b, h).From(q0), nq, D, w.d_o);
  const auto q = Load(HeadOf<const T>(a.in[1], b, h).From(q0), nq, D, w.q);
  const auto k_head = HeadOf<const T>(a.in[2], b, z.KvHead(h)), v_head = HeadOf<const T>(a.in[3], b, z.KvHead(h));
  const Rows<const T> o = HeadOf<const T>(a.in[4], b, h).From(q0);
  const Rows<T> dq_out = HeadOf<T>(a.out[0], b, h).From(q0);
  const Matrix<C> dq = Zeros(dq_out, nq, D, w.dq);
  for (int64_t i = 0; i < nq; ++i) {
    w.delta[i] =
        SumOf<C>(D, [&](int64_t d) { return d_o.data[i * d_o.ld + d] * static_cast<C>(o.data[i * o.ld + d]); });
  }
  for (int64_t k0 = 0; k0 < z.T; k0 += kKeys) {
    const Block block = {q0, nq, k0, std::min(kKeys, z.T - k0)};
    const int64_t nk = block.nk;
    const Mask mask = MaskOf(see, block);
    if (mask == Mask::kAll) continue;
    const auto k = Load(k_head.From(k0), nk, D, w.k), v = Load(v_head.From(k0), nk, D, w.v);
    Scores(block, z, mask, see, q, k, w.p);
    for (int64_t i = 0; i < nq; ++i) {
      const C lse = Shift(a.in[5].as<C>()[(b * z.S + q0 + i) * z.H + h]);
      for (int64_t j = 0; j < nk; ++j) w.p[i * nk + j] -= lse;
    }
    ExpInPlace(w.p, nq * nk);
    SerialGemm(nk, D, nq, 1, Const(w.p, nk, Transpose::kYes), d_o, 1,
               Matrix<C>{sums.dv.data + k0 * sums.dv.ld, sums.dv.ld});
    SerialGemm(nq, nk, D, 1, d_o, Transposed(v), 0, Matrix<C>{w.ds, nk});
    const C scale = static_cast<C>(z.Scale());
    for (int64_t i = 0; i < nq; ++i) {
      for (int64_t j = i * nk; j < (i + 1) * nk; ++j) w.ds[j] = w.p[j] * (w.ds[j] - w.delta[i]) * scale;
    }
    SerialGemm(nq, D, nk, 1, Const(w.ds, nk), k, 1, dq);
    SerialGemm(nk, D, nq, 1, Const(w.ds, nk, Transpose::kYes), q, 1,
               Matrix<C>{sums.dk.data + k0 * sums.dk.ld, sums.dk.ld});
  }
  Store(dq, nq, D, dq_out);
}

template <typename T>
int64_t BackwardWorkspace(const Op&, std::span<const TensorRef> in) {
  const Sizes z(in[1], in[2]);
  return std::min(kLanes, z.B * z.Hk) * BackwardScratch<T>(z, nullptr).size *
         static_cast<int64_t>(sizeof(ComputeType<T>));
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

}  // namespace

void AddBackward(KernelTable& table) {
  AddForFloats(table, "attention_bwd", []<typename T>() {
    return Kernel{Backward<T>, BackwardWorkspace<T>, AttentionCost};
  });
}

}  // namespace strata::attention
