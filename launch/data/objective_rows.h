#pragma once
// Rows of text as rows of a model's objective. Next token: as they are. Masked token (Devlin et al., arXiv:1810.04805,
// sec. 3.1): targets are the row's own tokens, weights those of the chosen positions, about 15% of them and at least one of
// a row; a chosen token becomes model.mask_token in 80% of cases, a random one in 10%, and stays in 10%. All choices are a
// function of (seed, row index, position). Positions without weight in the base row are never chosen.

#include <cstdint>

#include "launch/job/row_source.h"
#include "models/model_config.h"

namespace strata {

class ObjectiveRows final : public RowSource {  // `base` must outlive it
 public:
  ObjectiveRows(const RowSource& base, const ModelConfig& model, int64_t seed)
      : base_(base), model_(model), seed_(static_cast<uint64_t>(seed)) {}
  absl::Status Row(int64_t index, const RowSpans& row) const override;

 private:
  void Hide(uint64_t index, std::span<int32_t> tokens, std::span<float> weights) const;

  const RowSource& base_;
  const ModelConfig model_;
  const uint64_t seed_;
};

}  // namespace strata
