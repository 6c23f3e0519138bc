#pragma once
// What every model is written with: graph inputs, parameters by name, and the boundaries that placement tables name.

#include <map>
#include <string>

#include "core/graph/builder.h"
#include "models/model.h"

namespace strata {

struct ModelInputs {  // declared in this order; see ModelLoss
  Value tokens_BS, targets_BS, weights_BS, positions_S, loss_scale, samples_B, document_starts_BS;
  Value
      text_positions;  // not an input: of each token in its text; positions_S, or [B,S] where documents are kept apart
};
ModelInputs LossInputs(GraphBuilder& g, const ModelConfig& config, const LossSpec& spec);
ModelInputs LogitInputs(GraphBuilder& g, const ModelConfig& config, int64_t batch);  // tokens and positions only

// Parameters of one dtype; a tied one is a state that is read once.
class Params {
 public:
  Params(GraphBuilder& g, DType dtype) : g_(g), dtype_(dtype) {}
  Value operator()(const std::string& name, Shape shape);
  // A table over the vocabulary: [rows, inner], or [rows] where inner is 0; rows of zeros pad it.
  Value OverVocab(const std::string& name, const ModelConfig& config, int64_t inner);
  ModelLoss Loss(Value loss, Value loss_scale) const;  // with all parameters read so far

 private:
  Value Read(State state);

  GraphBuilder& g_;
  DType dtype_;
  std::map<StateId, Value> reads_;
};

// x as the value "<scope>.residual", which a placement table may pin.
Value Residual(GraphBuilder& g, Value x);

bool EndsWith(std::string_view s, std::string_view end);

}  // namespace strata
