#pragma once
// Which transformer blocks, and parts of blocks (parts.h), each pipeline stage has. The embedding is in the first stage, the
// head in the last one; blocks are in order and none is left out, but their number may differ from stage to stage. Values.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace strata {

struct StageLayout {
  // [first, end): part p of block b is b * parts_per_block + p. May be empty in the first and last stage.
  struct Parts {
    int first = 0, end = 0;
    bool operator==(const Parts&) const = default;
  };
  std::vector<Parts> stages;
  int parts_per_block = 1;  // those of the model, or 1 where no stage ends in the middle of a block

  int num_stages() const { return static_cast<int>(stages.size()); }
  int num_parts() const { return stages.empty() ? 0 : stages.back().end; }
  int StageOf(int block, int part) const;
  bool operator==(const StageLayout&) const = default;
};

struct ModelBlocks {
  int count = 0, parts = 1;  // parts of each
};

// "E,0-3 | 4-7 | 8-10 | 11,H": stages from first to last; E is the embedding, H the head. Parts of a block are a, b, ...:
// "E,0-15a | 15b-27,H" is cut after the first part of block 15.
std::string ToString(const StageLayout& layout);
// Reads such a list; several ranges in a row ("0-14,15a") and whole blocks by parts ("15a-15b") too.
// Errors: InvalidArgument for a text that is not such a list, has not `num_stages` stages, or does not have each part of the
// model's blocks once and in order; it names a layout that would do.
absl::StatusOr<StageLayout> ParseStageLayout(std::string_view text, const ModelBlocks& model, int num_stages);

}  // namespace strata
