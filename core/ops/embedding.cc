#include "core/ops/embedding.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

using Specs = absl::StatusOr<std::vector<TensorSpec>>;
using Values = absl::StatusOr<std::vector<Value>>;

absl::Status ExpectTokensAndTable(const TensorSpec& tokens, const TensorSpec& table) {
  if (tokens.dtype != DType::kI32) return absl::InvalidArgumentError("takes i32 tokens");
  if (!IsFloating(table.dtype) || table.shape.rank != 2) {
    return absl::InvalidArgumentError("takes a floating table of two dims");
  }
  return absl::OkStatus();
}

class EmbeddingOp final : public Op {
 public:
  std::string_view name() const override { return "embedding"; }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 2));
    RETURN_IF_ERROR(ExpectTokensAndTable(in[0], in[1]));
    return std::vector<TensorSpec>{{in[1].dtype, InsertDim(in[0].shape, in[0].shape.rank, in[1].shape[1]), {}}};
  }
  Values Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{{}, EmbeddingDw(a.g, a.inputs[0], a.grads[0], a.inputs[1], a.node.loc)};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const int rank = in[0].shape.rank;
    std::vector<ShardRule> rules;
    for (int d = 0; d < rank; ++d) rules.push_back({{Shard(d), Replicate()}, {Shard(d)}});
    rules.push_back({{Replicate(), Shard(0)}, {Partial()}});
    rules.push_back({{Replicate(), Shard(1)}, {Shard(rank)}});
    rules.push_back({{Replicate(), Replicate()}, {Replicate()}});
    return rules;
  }
};

class EmbeddingDwOp final : public Op {
 public:
  explicit EmbeddingDwOp(EmbeddingDwSpec spec) : spec_(spec) {}
  std::string_view name() const override { return "embedding_dw"; }
  std::string attributes() const override {
    const std::string vocab = spec_.vocab > 0 ? absl::StrFormat("vocab=%d", spec_.vocab) : "";
    return !spec_.rounded ? vocab : vocab.empty() ? "rounded" : vocab + " rounded";
  }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, spec_.vocab > 0 ? 2 : 3));
    const TensorSpec &tokens = in[0], &dy = in[1];
    if (dy.shape.rank == 0) return absl::InvalidArgumentError("takes gradients of rows");
    const TensorSpec table = spec_.vocab > 0 ? TensorSpec{dy.dtype, {spec_.vocab, dy.shape.back()}, {}} : in[2];
    RETURN_IF_ERROR(ExpectTokensAndTable(tokens, table));
    if (dy.dtype != table.dtype || dy.shape != InsertDim(tokens.shape, tokens.shape.rank, table.shape[1])) {
      return absl::InvalidArgumentError("the gradient does not fit tokens and table");
    }
    return std::vector<TensorSpec>{{spec_.rounded ? dy.dtype : AccumulatorOf(dy.dtype), table.shape, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const int rank = in[0].shape.rank;
    std::vector<ShardRule> rules;
    for (int d = 0; d < rank; ++d) rules.push_back({{Shard(d), Shard(d), Replicate()}, {Partial()}});
    rules.push_back({{Replicate(), Replicate(), Shard(0)}, {Shard(0)}});
    rules.push_back({{Replicate(), Shard(rank), Shard(1)}, {Shard(1)}});
    rules.push_back({{Replicate(), Partial(), Replicate()}, {Partial()}});
    rules.push_back({{Replicate(), Replicate(), Replicate()}, {Replicate()}});
    return rules;
  }

  const EmbeddingDwSpec& spec() const { return spec_; }

 private:
  const EmbeddingDwSpec spec_;
};

}  // namespace

Value Embedding(GraphBuilder& g, Value tokens, Value table, SourceLoc loc) {
  return g.Add(std::make_shared<EmbeddingOp>(), {tokens, table}, loc)[0];
}
Value EmbeddingDw(GraphBuilder& g, Value tokens, Value dy, Value table, SourceLoc loc) {
  return g.Add(std::make_shared<EmbeddingDwOp>(EmbeddingDwSpec{}), {tokens, dy, table}, loc)[0];
}
Value EmbeddingDw(GraphBuilder& g, Value tokens, Value dy, const EmbeddingDwSpec& spec, SourceLoc loc) {
  return g.Add(std::make_shared<EmbeddingDwOp>(spec), {tokens, dy}, loc)[0];
}
std::shared_ptr<const Op> RoundedEmbeddingDw() {
  return std::make_shared<EmbeddingDwOp>(EmbeddingDwSpec{.rounded = true});
}
const EmbeddingDwSpec& EmbeddingDwSpecOf(const Op& op) { return static_cast<const EmbeddingDwOp&>(op).spec(); }

}  // namespace strata
