#pragma once
// From a config file to a complete, checked job.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/config/errors.h"
#include "launch/config/job_config.h"

namespace strata {

struct LoadedJob {
  JobConfig config;  // paths are absolute, batch.* and run.out are set
  Provenance provenance;
};

// The key of a mistake in data.train[i]: that of the item where a file lists them, else of the whole.
std::string TrainSourceKey(const Provenance& provenance, size_t i);

// What a command will use, and so must be set and exist.
struct ConfigNeeds {
  bool tokenizer = false;  // tokenizer.path
  bool data = false;       // data.train; and, where they are set, data.valid and tokenizer.path
  bool valid = false;      // data.valid
};

// Values of a command line, "optim.lr=0.1", over those of the file; of the same key the last one counts.
using Overrides = std::vector<std::string>;

// Relative paths in the file are relative to the folder of the file, wherever the command is run; those of overrides to
// the current folder. Where model.from names a model, its config.json gives the keys of [model] that are not said, and those
// that are said must not contradict it. Errors: InvalidArgument with every mistake in the text of errors.h; nothing is ever written.
absl::StatusOr<LoadedJob> LoadJobConfig(Env& env, const std::string& path, ConfigNeeds needs = {},
                                        const Overrides& overrides = {});

// The same from `text`, without looking at any other file: model.from fills nothing in.
absl::StatusOr<LoadedJob> ParseJobConfig(std::string_view text, const std::string& path,
                                         const Overrides& overrides = {});

}  // namespace strata
