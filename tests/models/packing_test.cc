// float64: documents packed into rows give the loss and the gradients of the same documents, each in a row of its own.

#include "models/packing.h"

#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_format.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/graph/autograd.h"
#include "core/graph/op.h"
#include "models/model.h"
#include "tests/testing/interpreter.h"

namespace strata {
namespace {

using testing::Tensor;

constexpr int64_t kSeq = 8;
constexpr double kTolerance = 1e-10;

ModelConfig Small(ModelArch arch) {
  ModelConfig c{.arch = arch, .vocab = 30, .layers = 2, .dim = 12, .heads = 3, .kv_heads = 3, .ffn = 20, .seq = kSeq};
  if (arch == ModelArch::kLlama) c.kv_heads = 1;
  return c;
}

// A stretch of one document within one row.
struct Piece {
  int64_t row, begin, length;
};
// The pieces of documents of these lengths, one after the other in rows of kSeq.
std::vector<Piece> Cut(const std::vector<int64_t>& lengths) {
  std::vector<Piece> pieces;
  int64_t at = 0;
  for (int64_t left : lengths) {
    while (left > 0) {
      const int64_t n = std::min(left, kSeq - at % kSeq);
      pieces.push_back({at / kSeq, at % kSeq, n});
      at += n, left -= n;
    }
  }
  return pieces;
}

struct Batch {
  Tensor tokens, targets, weights, starts;
  explicit Batch(int64_t rows)
      : tokens(Tensor::Zeros(DType::kI32, {rows, kSeq})),
        targets(tokens),
        weights(Tensor::Zeros(DType::kF64, {rows, kSeq})),
        starts(tokens) {}
  int64_t rows() const { return tokens.shape[0]; }
};

Batch Packed(const std::vector<Piece>& pieces, int64_t rows) {
  Batch b(rows);
  b.tokens = Tensor::RandomInts({rows, kSeq}, 0, 30, 1);
  b.targets = Tensor::RandomInts({rows, kSeq}, 0, 30, 2);
  b.weights = Tensor::Random(DType::kF64, {rows, kSeq}, 3);
  for (const Piece& p : pieces) {
    for (int64_t i = 0; i < p.length; ++i) b.starts.set(p.row * kSeq + p.begin + i, static_cast<double>(p.begin));
  }
  return b;
}

// Piece i at the beginning of row i, then tokens without weight.
Batch Separate(const Batch& packed, const std::vector<Piece>& pieces) {
  Batch b(static_cast<int64_t>(pieces.size()));
  for (size_t row = 0; row < pieces.size(); ++row) {
    const Piece& p = pieces[row];
    for (int64_t i = 0; i < p.length; ++i) {
      const int64_t from = p.row * kSeq + p.begin + i, to = static_cast<int64_t>(row) * kSeq + i;
      b.tokens.set(to, packed.tokens.at(from));
      b.targets.set(to, packed.targets.at(from));
      b.weights.set(to, packed.weights.at(from));
    }
  }
  return b;
}

struct Outcome {
  double loss = 0;
  std::map<std::string, Tensor> grads;  // by parameter
};
absl::StatusOr<Outcome> Train(const ModelConfig& c, const Batch& b, Packing packing) {
  GraphBuilder g;
  const ModelLoss model =
      ModelOf(c.arch).loss(g, c, {.batch = b.rows(), .dtype = DType::kF64, .chunks = 2, .packing = packing});
  ASSIGN_OR_RETURN(Graph graph, std::move(g).Build());
  ASSIGN_OR_RETURN(graph, Differentiate(graph, model.loss, model.loss_scale, model.params));
  graph.outputs["loss"] = model.loss;
  ASSIGN_OR_RETURN(graph, DecomposeOps(graph, [](const Op& op) { return op.name() == "head_loss"; }));
  std::map<std::string, Tensor> bindings = {{"tokens", b.tokens},
                                            {"targets", b.targets},
                                            {"weights", b.weights},
                                            {"document_starts", b.starts},
                                            {"loss_scale", Tensor::Of({}, {0.25})}};
  Tensor& positions = bindings["positions"] = Tensor::Zeros(DType::kI32, {kSeq});
  for (int64_t i = 0; i < kSeq; ++i) positions.set(i, static_cast<double>(i));
  for (const State& s : graph.states) {
    bindings[s.name] = Tensor::Random(s.spec.dtype, s.spec.shape, HashName(s.name), 0.3);
  }
  ASSIGN_OR_RETURN(const auto values, testing::Evaluate(graph, bindings));
  const auto at = [&](Value v) { return values[v.node][v.output]; };
  Outcome outcome{at(graph.outputs.at("loss")).at(0), {}};
  for (size_t i = 0; i < model.states.size(); ++i) {
    outcome.grads[graph.states[model.states[i]].name] = at(graph.outputs.at(absl::StrFormat("grad.%d", i)));
  }
  return outcome;
}

class PackedModel : public ::testing::TestWithParam<ModelArch> {};
INSTANTIATE_TEST_SUITE_P(Archs, PackedModel, ::testing::Values(ModelArch::kLlama, ModelArch::kGpt2),
                         [](const auto& info) { return std::string(kModelArchNames[static_cast<int>(info.param)]); });

// Documents of one token, one cut by a row's end, one that fills a whole row and parts of two others.
TEST_P(PackedModel, IsSeparateDocuments) {
  const ModelConfig c = Small(GetParam());
  const std::vector<Piece> pieces = Cut({3, 1, 1, 6, 15, 1, 5});
  ASSERT_EQ(pieces.size(), 10u);
  const Batch packed = Packed(pieces, 4);
  const auto got = Train(c, packed, Packing::kIsolate), want = Train(c, Separate(packed, pieces), Packing::kConcat),
             concat = Train(c, packed, Packing::kConcat);
  ASSERT_TRUE(got.ok() && want.ok() && concat.ok()) << got.status() << want.status() << concat.status();
  EXPECT_LE(std::abs(got->loss - want->loss), kTolerance * std::max(1.0, std::abs(want->loss)));
  EXPECT_GT(std::abs(got->loss - concat->loss), 1e-3);
  EXPECT_GE(want->grads.size(), 12u);
  for (const auto& [name, grad] : want->grads) {
    const double scale = std::max(1.0, MaxAbs(grad));
    EXPECT_LE(MaxAbsDiff(got->grads.at(name), grad), kTolerance * scale) << name;
    EXPECT_GT(MaxAbs(grad), 0) << name;
  }
}

TEST(PackedModels, BertRefuses) {
  const auto bert = Train(Small(ModelArch::kBert), Batch(1), Packing::kIsolate);
  EXPECT_EQ(bert.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace strata
