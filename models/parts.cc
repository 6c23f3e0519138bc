#include "models/parts.h"

#include "core/ops/document_positions.h"
#include "core/ops/elementwise.h"

namespace strata {

ModelInputs LossInputs(GraphBuilder& g, const ModelConfig& config, const LossSpec& spec) {
  const Shape bs{spec.batch, config.seq};
  const DType accumulator = AccumulatorOf(spec.dtype);
  ModelInputs in;
  in.tokens_BS = g.Input("tokens", {DType::kI32, bs, {}});
  in.targets_BS = g.Input("targets", {DType::kI32, bs, {}});
  in.weights_BS = g.Input("weights", {accumulator, bs, {}});
  in.positions_S = g.Input("positions", {DType::kI32, {config.seq}, {}});
  in.loss_scale = g.Input("loss_scale", {accumulator, {}, {}});
  if (spec.dropout > 0) in.samples_B = g.Input("samples", {DType::kI32, {spec.batch}, {}});
  in.text_positions = in.positions_S;
  if (spec.packing == Packing::kIsolate) {
    in.document_starts_BS = g.Input("document_starts", {DType::kI32, bs, {}});
    in.text_positions = DocumentPositions(g, in.positions_S, in.document_starts_BS);
  }
  return in;
}

ModelInputs LogitInputs(GraphBuilder& g, const ModelConfig& config, int64_t batch) {
  ModelInputs in;
  in.tokens_BS = g.Input("tokens", {DType::kI32, {batch, config.seq}, {}});
  in.positions_S = in.text_positions = g.Input("positions", {DType::kI32, {config.seq}, {}});
  return in;
}

Value Params::operator()(const std::string& name, Shape shape) {
  return Read({name, Role::kParam, {dtype_, shape, {}}});
}

Value Params::OverVocab(const std::string& name, const ModelConfig& config, int64_t inner) {
  const auto shape = [&](int64_t rows) { return inner > 0 ? Shape{rows, inner} : Shape{rows}; };
  State state{name, Role::kParam, {dtype_, shape(config.table_rows()), {}}};
  if (config.classes() > 0) state.model_shape = shape(config.vocab);
  return Read(std::move(state));
}

Value Params::Read(State state) {
  const StateId id = g_.Declare(std::move(state));
  const auto [it, fresh] = reads_.try_emplace(id);
  if (fresh) it->second = g_.Read(id);
  return it->second;
}

ModelLoss Params::Loss(Value loss, Value loss_scale) const {
  ModelLoss result{loss, loss_scale, {}, {}};
  for (const auto& [state, read] : reads_) {
    result.params.push_back(read);
    result.states.push_back(state);
  }
  return result;
}

Value Residual(GraphBuilder& g, Value x) {
  x = Identity(g, x);
  g.Name("residual", x);
  return x;
}

bool EndsWith(std::string_view s, std::string_view end) {
  return s.size() >= end.size() && s.substr(s.size() - end.size()) == end;
}

}  // namespace strata
