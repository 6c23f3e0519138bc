#include "parallel/pipeline/costs.h"

#include <algorithm>

#include "core/graph/op.h"
#include "parallel/pipeline/parts.h"

namespace strata {
namespace {

struct Rate {
  std::string_view op;
  double relative;
};
// H200, bf16, heads of 128, rows of 4096 (bench/RESULTS.md): 537 and 347 TFLOP/s, the products of the same step 656.
constexpr Rate kRates[] = {{"attention", 0.82}, {"attention_bwd", 0.53}};

}  // namespace

double RelativeRate(std::string_view op) {
  const Rate* rate = std::find_if(std::begin(kRates), std::end(kRates), [&](const Rate& r) { return r.op == op; });
  return rate == std::end(kRates) ? 1 : rate->relative;
}

ModelCosts CostsOf(const Graph& train) {
  const std::vector<ModelPart> parts = PartsOf(train);
  ModelCosts costs{.parts_per_block = PartsPerBlock(train)};
  for (size_t i = 0; i < parts.size(); ++i) {
    const Node& n = train.nodes[i];
    std::vector<TensorSpec> in;
    for (Value v : n.inputs) in.push_back(train.spec(v));
    const double work = n.op->Flops(in) / RelativeRate(n.op->name());
    if (parts[i].kind == ModelPart::kEmbedding) costs.embedding += work;
    if (parts[i].kind == ModelPart::kHead) costs.head += work;
    if (parts[i].kind != ModelPart::kBlock) continue;
    const size_t block = parts[i].block, per_block = costs.parts_per_block;
    costs.parts.resize(std::max(costs.parts.size(), (block + 1) * per_block));
    costs.parts[block * per_block + parts[i].part] += work;
  }
  return costs;
}

}  // namespace strata
