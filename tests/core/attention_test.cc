#include "core/ops/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "absl/strings/str_format.h"
#include "core/ops/move.h"
#include "tests/testing/op_checks.h"
#include "tests/testing/shard_checks.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;
using Positions = std::vector<double>;

template <AttentionMask kMask = AttentionMask::kCausal>
Values Forward(GraphBuilder& g, const Values& in) {
  const Value o = Attention(g, in[0], in[1], in[2], in[3], in[4], kMask);
  return {o, {o.node, o.valid() ? 1 : 0}};
}
template <AttentionMask kMask = AttentionMask::kCausal>
Values ForwardO(GraphBuilder& g, const Values& in) {
  return {Forward<kMask>(g, in)[0]};
}
template <AttentionMask kMask = AttentionMask::kCausal>
Values Backward(GraphBuilder& g, const Values& in) {  // lse arrives in the dtype of q
  const Value lse = Cast(g, in[5], AccumulatorOf(g.spec(in[5]).dtype));
  const AttentionGrads d = AttentionBwd(g, in[0], in[1], in[2], in[3], in[4], lse, in[6], in[7], kMask);
  return {d.dq_BSHD, d.dk_BTHD, d.dv_BTHD};
}
// Forward and backward in one, so that o and lse are those of the dtype: inputs do, q, k, v, pos_q, pos_k.
template <AttentionMask kMask = AttentionMask::kCausal>
Values Both(GraphBuilder& g, const Values& in) {
  const Values o = Forward<kMask>(g, {in[1], in[2], in[3], in[4], in[5]});
  const AttentionGrads d = AttentionBwd(g, in[0], in[1], in[2], in[3], o[0], o[1], in[4], in[5], kMask);
  return {o[0], d.dq_BSHD, d.dk_BTHD, d.dv_BTHD};
}

Positions Ascending(int64_t n, double first = 0) {
  Positions p(n);
  std::iota(p.begin(), p.end(), first);
  return p;
}
Positions Permuted(int64_t n) {  // 31 is coprime to all n used here
  Positions p(n);
  for (int64_t i = 0; i < n; ++i) p[i] = static_cast<double>((i * 31 + 5) % n);
  return p;
}

struct Case {
  Tensor q, k, v, pos_q, pos_k;
  std::vector<Tensor> in() const { return {q, k, v, pos_q, pos_k}; }
};
Case MakeCase(int64_t B, int64_t H, int64_t Hk, int64_t D, const Positions& pos_q, const Positions& pos_k) {
  const int64_t S = static_cast<int64_t>(pos_q.size()), T = static_cast<int64_t>(pos_k.size());
  const auto random = [](Shape shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); };
  return {random({B, S, H, D}, 1), random({B, T, Hk, D}, 2), random({B, T, Hk, D}, 3),
          Tensor::Of({S}, pos_q, DType::kI32), Tensor::Of({T}, pos_k, DType::kI32)};
}

struct Naive {
  Tensor o, lse, dq, dk, dv;
};
// Straight from the formulas, a row of probabilities at a time.
Naive Reference(const Case& c, const Tensor& d_o) {
  const int64_t B = c.q.shape[0], S = c.q.shape[1], H = c.q.shape[2], D = c.q.shape[3], T = c.k.shape[1],
                Hk = c.k.shape[2];
  const auto zeros = [](const Shape& s) { return Tensor::Zeros(DType::kF64, s); };
  Naive n = {zeros(c.q.shape), zeros({B, S, H}), zeros(c.q.shape), zeros(c.k.shape), zeros(c.k.shape)};
  const double scale = 1 / std::sqrt(static_cast<double>(D));
  const auto add = [](Tensor& t, int64_t i, double x) { t.set(i, t.at(i) + x); };
  const auto dot = [&](const Tensor& a, int64_t i, const Tensor& b, int64_t j) {
    double sum = 0;
    for (int64_t d = 0; d < D; ++d) sum += a.at(i + d) * b.at(j + d);
    return sum;
  };
  for (int64_t row = 0; row < B * S * H; ++row) {
    const int64_t b = row / (S * H), s = row / H % S, h = row % H, qi = row * D;
    const auto ki = [&](int64_t t) { return ((b * T + t) * Hk + h / (H / Hk)) * D; };
    std::vector<double> p(T, 0);
    double total = 0;
    for (int64_t t = 0; t < T; ++t) {
      if (c.pos_k.at(t) <= c.pos_q.at(s)) total += p[t] = std::exp(scale * dot(c.q, qi, c.k, ki(t)));
    }
    n.lse.set(row, std::log(total));
    if (total == 0) continue;
    for (int64_t t = 0; t < T; ++t) {
      p[t] /= total;
      for (int64_t d = 0; d < D; ++d) add(n.o, qi + d, p[t] * c.v.at(ki(t) + d));
    }
    const double delta = dot(d_o, qi, n.o, qi);
    for (int64_t t = 0; t < T; ++t) {
      const double ds = p[t] * (dot(d_o, qi, c.v, ki(t)) - delta) * scale;
      for (int64_t d = 0; d < D; ++d) {
        add(n.dq, qi + d, ds * c.k.at(ki(t) + d));
        add(n.dk, ki(t) + d, ds * c.q.at(qi + d));
        add(n.dv, ki(t) + d, p[t] * d_o.at(qi + d));
      }
    }
  }
  return n;
}

void ExpectNaive(const Case& c) {
  const Tensor d_o = Tensor::Random(DType::kF64, c.q.shape, 4);
  const Naive naive = Reference(c, d_o);
  const auto forward = Call(Forward<>, c.in());
  ASSERT_TRUE(forward.ok()) << forward.status();
  EXPECT_LE(MaxAbsDiff((*forward)[0], naive.o), 1e-13);
  for (int64_t i = 0; i < naive.lse.size(); ++i) {
    const double got = (*forward)[1].at(i), expected = naive.lse.at(i);
    ASSERT_TRUE(got == expected || std::abs(got - expected) <= 1e-13) << i << " " << got << " " << expected;
  }
  const auto grads = Call(Backward<>, {d_o, c.q, c.k, c.v, naive.o, naive.lse, c.pos_q, c.pos_k});
  ASSERT_TRUE(grads.ok()) << grads.status();
  EXPECT_LE(MaxAbsDiff((*grads)[0], naive.dq), 1e-12);
  EXPECT_LE(MaxAbsDiff((*grads)[1], naive.dk), 1e-12);
  EXPECT_LE(MaxAbsDiff((*grads)[2], naive.dv), 1e-12);
}

TEST(Attention, IsNaiveAttentionOnOddSizes) {
  for (int64_t S : {1, 7, 65, 130}) {
    for (int64_t Hk : {3, 2, 1}) {
      for (int64_t D : {4, 16}) {
        SCOPED_TRACE(absl::StrFormat("S=%d Hk=%d D=%d", S, Hk, D));
        ExpectNaive(MakeCase(S > 100 ? 1 : 2, 6, Hk, D, Ascending(S), Ascending(S)));
      }
    }
  }
}

TEST(Attention, PositionsInAnyOrder) { ExpectNaive(MakeCase(1, 4, 2, 4, Permuted(130), Permuted(130))); }

TEST(Attention, QueriesOfOneSequenceShard) {
  ExpectNaive(MakeCase(1, 4, 2, 4, Ascending(65, 65), Ascending(130)));
  ExpectNaive(MakeCase(1, 4, 2, 4, Ascending(65), Ascending(130)));
}

TEST(Attention, QueryWithoutKeysGivesZero) {
  const Case c = MakeCase(1, 2, 1, 4, Ascending(150), Ascending(150, 140));  // whole blocks, and rows of one
  ExpectNaive(c);
  const auto out = Call(Forward<>, c.in());
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ((*out)[0].at(0), 0);
  EXPECT_EQ((*out)[1].at(0), -INFINITY);
  EXPECT_NE((*out)[0].at(140 * 8), 0);
}

TEST(Attention, Gradient) {
  for (const Case& c :
       {MakeCase(2, 4, 2, 4, Ascending(5), Ascending(5)), MakeCase(1, 2, 1, 2, Permuted(130), Permuted(130))}) {
    const auto error = GradientError(ForwardO<>, c.in(), 20);
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LE(*error, 1e-6);
  }
}

TEST(Attention, ShardRules) {
  const Case c = MakeCase(2, 4, 2, 4, Permuted(8), Permuted(8));
  const auto out = Call(Forward<>, c.in());
  ASSERT_TRUE(out.ok()) << out.status();
  const Tensor d_o = Tensor::Random(DType::kF64, c.q.shape, 4);
  EXPECT_EQ(CheckShardRules(Forward<>, c.in(), 5), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Backward<>, {d_o, c.q, c.k, c.v, (*out)[0], (*out)[1], c.pos_q, c.pos_k}, 5),
            absl::OkStatus());
}

// More ranks than kv heads: a rank's query heads use a kv head in the middle of the whole ones.
TEST(Attention, ShardRulesWithKvHeadsWhole) {
  const Case c = MakeCase(4, 8, 2, 4, Ascending(8), Ascending(8));
  const auto out = Call(Forward<>, c.in());
  ASSERT_TRUE(out.ok()) << out.status();
  const Tensor d_o = Tensor::Random(DType::kF64, c.q.shape, 4);
  EXPECT_EQ(CheckShardRules(Forward<>, c.in(), 4, 4), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Backward<>, {d_o, c.q, c.k, c.v, (*out)[0], (*out)[1], c.pos_q, c.pos_k}, 4, 4),
            absl::OkStatus());
}

TEST(Attention, DTypesAndThreads) {
  const Case c = MakeCase(2, 4, 2, 16, Permuted(130), Permuted(130));
  const std::vector<Tensor> in = {Tensor::Random(DType::kF64, c.q.shape, 4), c.q, c.k, c.v, c.pos_q, c.pos_k};
  for (DType t : {DType::kF32, DType::kBF16}) {
    const auto error = DTypeError(Both<>, in, t);
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LE(*error, ToleranceOf(t)) << Name(t);
  }
  EXPECT_EQ(CheckThreads(Both<>, in), absl::OkStatus());
}

// Every query sees every key: what the causal formula gives where all queries come after all keys.
TEST(Attention, FullIgnoresPositions) {
  constexpr AttentionMask kFull = AttentionMask::kFull;
  const Case c = MakeCase(2, 4, 2, 4, Permuted(130), Permuted(130));
  Case last = c;
  last.pos_q = Tensor::Of({130}, Positions(130, 130), DType::kI32);
  const Tensor d_o = Tensor::Random(DType::kF64, c.q.shape, 4);
  const Naive naive = Reference(last, d_o);
  const auto out = Call(Both<kFull>, {d_o, c.q, c.k, c.v, c.pos_q, c.pos_k});
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_LE(MaxAbsDiff((*out)[0], naive.o), 1e-13);
  EXPECT_LE(MaxAbsDiff((*out)[1], naive.dq), 1e-12);
  EXPECT_LE(MaxAbsDiff((*out)[2], naive.dk), 1e-12);
  EXPECT_LE(MaxAbsDiff((*out)[3], naive.dv), 1e-12);
  const auto error = GradientError(ForwardO<kFull>, MakeCase(1, 2, 1, 2, Ascending(9), Ascending(9)).in());
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 1e-6);
}

TEST(Attention, FullShardRules) {
  constexpr AttentionMask kFull = AttentionMask::kFull;
  const Case c = MakeCase(2, 4, 2, 4, Permuted(8), Permuted(8));
  const auto out = Call(Forward<kFull>, c.in());
  ASSERT_TRUE(out.ok()) << out.status();
  const Tensor d_o = Tensor::Random(DType::kF64, c.q.shape, 4);
  EXPECT_EQ(CheckShardRules(Forward<kFull>, c.in(), 5), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Backward<kFull>, {d_o, c.q, c.k, c.v, (*out)[0], (*out)[1], c.pos_q, c.pos_k}, 5),
            absl::OkStatus());
}

TEST(Attention, RefusesHeadsThatDoNotGroup) {
  const TensorSpec kv = {DType::kF32, {1, 4, 2, 8}, {}}, positions = {DType::kI32, {4}, {}};
  const absl::Status s = BuildError(Forward<>, {{DType::kF32, {1, 4, 3, 8}, {}}, kv, kv, positions, positions});
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
}

}  // namespace
}  // namespace strata::testing
