#pragma once
// Initial weights from a Hugging Face model.

#include "absl/status/statusor.h"
#include "core/exec/executor.h"
#include "models/hf/hf_model.h"

namespace strata {

// Fills every parameter and master weight of the plan: this rank reads its own boxes and no more. Numbers become the state's
// type (a master weight is the widened weight); what is padding is zero. Moments and gradients are left alone.
// Errors: those of HfModel::Read.
absl::Status LoadHfWeights(const HfModel& model, Executor& executor);

}  // namespace strata
