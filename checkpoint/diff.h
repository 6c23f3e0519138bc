#pragma once
// How two checkpoints differ, tensor by tensor, whatever layouts they were saved in: `strata ckpt diff`.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/env.h"

namespace strata {

struct TensorDiff {
  std::string name;
  std::string what;           // "only in A", or how dtype or shape differ; empty where the values do
  int64_t elements = 0;       // that differ in their bits
  int64_t of = 0;             // elements in all
  double max_abs = 0;         // largest |a - b|; NaN if one of the two is NaN somewhere
  double max_rel = 0;         // largest |a - b| / max(|a|, |b|)
  std::string position;       // of the largest |a - b|: "[3, 17]"
};

struct CheckpointDiff {
  int64_t tensors = 0;             // names in either
  std::vector<TensorDiff> differ;  // by name
  std::string ToText() const;      // a line a tensor, and one that counts
};

// Reads every byte of both, some MiB at a time. Errors: those of CheckpointReader, naming the folder.
absl::StatusOr<CheckpointDiff> DiffCheckpoints(Env& env, const std::string& a, const std::string& b);

}  // namespace strata
