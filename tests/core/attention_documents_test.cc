// Attention among the documents of a row.

#include <gtest/gtest.h>

#include <numeric>

#include "core/ops/attention.h"
#include "core/ops/move.h"
#include "tests/testing/op_checks.h"
#include "tests/testing/shard_checks.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

Values Forward(GraphBuilder& g, const Values& in) {  // q, k, v, pos_q, pos_k, starts
  const Value o = Attention(g, in[0], in[1], in[2], in[3], in[4], AttentionMask::kCausal, in[5]);
  return {o, {o.node, o.valid() ? 1 : 0}};
}
Values ForwardO(GraphBuilder& g, const Values& in) { return {Forward(g, in)[0]}; }
Values Backward(GraphBuilder& g, const Values& in) {
  const AttentionGrads d =
      AttentionBwd(g, in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], AttentionMask::kCausal, in[8]);
  return {d.dq_BSHD, d.dk_BTHD, d.dv_BTHD};
}
// do, q, k, v, pos_q, pos_k and, with documents, starts.
Values Both(GraphBuilder& g, const Values& in) {
  const Value starts = in.size() > 6 ? in[6] : Value{};
  const Value o = Attention(g, in[1], in[2], in[3], in[4], in[5], AttentionMask::kCausal, starts);
  const AttentionGrads d = AttentionBwd(g, in[0], in[1], in[2], in[3], o, {o.node, o.valid() ? 1 : 0}, in[4], in[5],
                                        AttentionMask::kCausal, starts);
  return {o, d.dq_BSHD, d.dk_BTHD, d.dv_BTHD};
}

Tensor Ascending(int64_t n) {
  std::vector<double> p(n);
  std::iota(p.begin(), p.end(), 0);
  return Tensor::Of({n}, p, DType::kI32);
}

using Lengths = std::vector<int64_t>;  // of the documents of a row
Tensor Starts(const std::vector<Lengths>& rows) {
  const int64_t S = std::accumulate(rows[0].begin(), rows[0].end(), int64_t{0});
  std::vector<double> starts;
  for (const Lengths& row : rows) {
    int64_t begin = 0;
    for (const int64_t n : row) starts.insert(starts.end(), n, static_cast<double>(begin)), begin += n;
  }
  return Tensor::Of({static_cast<int64_t>(rows.size()), S}, starts, DType::kI32);
}

// do, q, k, v of B rows of S tokens.
std::vector<Tensor> Random(int64_t B, int64_t S, int64_t H, int64_t Hk, int64_t D) {
  const auto random = [&](int64_t heads, uint64_t seed) { return Tensor::Random(DType::kF64, {B, S, heads, D}, seed); };
  return {random(H, 1), random(H, 2), random(Hk, 3), random(Hk, 4)};
}

// Tokens [begin, begin + n) of one row of [B, S, H, D].
Tensor Tokens(const Tensor& x, int64_t row, int64_t begin, int64_t n) {
  const int64_t token = x.shape[2] * x.shape[3];
  Tensor part = Tensor::Zeros(x.dtype, {1, n, x.shape[2], x.shape[3]});
  for (int64_t i = 0; i < part.size(); ++i) part.set(i, x.at((row * x.shape[1] + begin) * token + i));
  return part;
}

TEST(AttentionDocuments, PackedAreSeparate) {
  const std::vector<std::vector<Lengths>> cases = {
      {{3, 1, 1, 2}, {7}},                     // within a block
      {{150, 1, 100, 49}, {1, 260, 38, 1}},    // over blocks of queries and keys, some of them of other documents only
      {{64, 64, 128, 64}, {128, 128, 63, 1}},  // at their edges
  };
  for (const std::vector<Lengths>& rows : cases) {
    const Tensor starts = Starts(rows);
    const int64_t S = starts.shape[1];
    std::vector<Tensor> in = Random(2, S, 4, 2, 4);
    std::vector<Tensor> packed = in;
    packed.insert(packed.end(), {Ascending(S), Ascending(S), starts});
    const auto got = Call(Both, packed);
    ASSERT_TRUE(got.ok()) << got.status();
    for (int64_t b = 0; b < 2; ++b) {
      int64_t begin = 0;
      for (const int64_t n : rows[b]) {
        std::vector<Tensor> alone;
        for (const Tensor& x : in) alone.push_back(Tokens(x, b, begin, n));
        alone.insert(alone.end(), {Ascending(n), Ascending(n)});
        const auto want = Call(Both, alone);
        ASSERT_TRUE(want.ok()) << want.status();
        for (size_t i = 0; i < want->size(); ++i) {
          EXPECT_LE(MaxAbsDiff(Tokens((*got)[i], b, begin, n), (*want)[i]), 1e-12) << i << " " << b << " " << begin;
        }
        begin += n;
      }
    }
  }
}

TEST(AttentionDocuments, OneDocumentIsARow) {
  std::vector<Tensor> in = Random(2, 130, 2, 1, 8);
  in.insert(in.end(), {Ascending(130), Ascending(130)});
  const auto without = Call(Both, in);
  in.push_back(Starts({{130}, {130}}));
  const auto with = Call(Both, in);
  ASSERT_TRUE(without.ok() && with.ok()) << with.status();
  for (size_t i = 0; i < with->size(); ++i) EXPECT_EQ((*with)[i].data, (*without)[i].data);
}

TEST(AttentionDocuments, Gradient) {
  for (const std::vector<Lengths>& rows : {std::vector<Lengths>{{2, 1, 2}, {5}}, {{70, 1, 59}, {1, 128, 1}}}) {
    const Tensor starts = Starts(rows);
    std::vector<Tensor> in = Random(2, starts.shape[1], 2, 1, 2);
    in.erase(in.begin());
    in.insert(in.end(), {Ascending(starts.shape[1]), Ascending(starts.shape[1]), starts});
    const auto error = GradientError(ForwardO, in, 20);
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LE(*error, 1e-6);
  }
}

TEST(AttentionDocuments, ShardRulesDTypesAndThreads) {
  const std::vector<Tensor> x = Random(2, 8, 4, 2, 4);
  const Tensor p = Ascending(8), starts = Starts({{3, 1, 4}, {5, 3}});
  const std::vector<Tensor> in = {x[1], x[2], x[3], p, p, starts};
  const auto out = Call(Forward, in);
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(CheckShardRules(Forward, in, 5), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Backward, {x[0], x[1], x[2], x[3], (*out)[0], (*out)[1], p, p, starts}, 5),
            absl::OkStatus());
  const std::vector<Tensor> both = {x[0], x[1], x[2], x[3], p, p, starts};
  for (DType t : {DType::kF32, DType::kBF16}) {
    const auto error = DTypeError(Both, both, t);
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LE(*error, ToleranceOf(t)) << Name(t);
  }
  EXPECT_EQ(CheckThreads(Both, both), absl::OkStatus());
}

TEST(AttentionDocuments, RefusesFullAttentionAndOtherShapes) {
  const TensorSpec x = {DType::kF32, {2, 4, 2, 8}, {}}, p = {DType::kI32, {4}, {}}, starts = {DType::kI32, {2, 4}, {}};
  const auto full = [](GraphBuilder& g, const Values& in) {
    return Values{Attention(g, in[0], in[1], in[2], in[3], in[4], AttentionMask::kFull, in[5])};
  };
  EXPECT_FALSE(BuildError(full, {x, x, x, p, p, starts}).ok());
  EXPECT_FALSE(BuildError(ForwardO, {x, x, x, p, p, p}).ok());
  EXPECT_TRUE(BuildError(ForwardO, {x, x, x, p, p, starts}).ok());
}

}  // namespace
}  // namespace strata::testing
