#pragma once
// The files that a config names, opened and held against it.

#include <optional>

#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/config/load_config.h"
#include "launch/data/loader.h"
#include "launch/data/training_data.h"
#include "launch/tokenizer/tokenizer.h"

namespace strata {

struct JobInputs {
  std::optional<Tokenizer> tokenizer;  // where tokenizer.path is set
  std::optional<TrainingData> train;   // where needs.data
  std::optional<Loader> valid;         // where needs.data and data.valid is set
};

// Errors: InvalidArgument with every mistake at its place in the config: a file that is not what it should be, a token
// beyond the vocabulary, a tokenizer of another size, token files of different tokenizers.
absl::StatusOr<JobInputs> OpenInputs(Env& env, const LoadedJob& job, ConfigNeeds needs);

}  // namespace strata
