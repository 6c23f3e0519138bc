#pragma once
// A small checkpoint of known content, for tests: tensors of several dtypes and ranks, split over ranks in several ways.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/commit.h"
#include "checkpoint/writer.h"
#include "core/base/env.h"
#include "tests/testing/temp_dir.h"

namespace strata::testing {

struct TestTensor {
  std::string name;
  DType dtype;
  Shape shape;
};
const std::vector<TestTensor>& TestTensors();

// The whole tensor's bytes at a step.
std::vector<std::byte> TestContent(const TestTensor& tensor, int64_t step);
// The bytes of one box of it, element by element.
std::vector<std::byte> CutBox(const std::vector<std::byte>& whole, DType dtype, const Shape& shape, const Shape& offset,
                              const Shape& size);

// What one rank saves, and the memory that it lies in.
struct RankBoxes {
  std::vector<std::vector<std::byte>> memory;
  std::vector<SavedBox> boxes;
  void Add(const TestTensor& tensor, int64_t step, const Shape& offset, const Shape& size);
};
// Rank 0 holds scalars; other tensors are split along one dim or as flat ranges (up to three boxes a rank).
RankBoxes TestBoxes(int rank, int num_ranks, int64_t step);

CheckpointMeta TestMeta(int64_t step);

// BeginSave, all ranks' WriteShard one after the other, CommitCheckpoint.
absl::StatusOr<Committed> SaveTestCheckpoint(Env& env, const std::string& root, int64_t step, int num_ranks, int keep);

// OK if every tensor, read whole, and the meta data are those of the step.
absl::Status CheckTestCheckpoint(Env& env, const std::string& dir, int64_t step);

}  // namespace strata::testing
