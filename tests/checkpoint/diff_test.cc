#include "checkpoint/diff.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/test_checkpoint.h"

namespace strata {
namespace {

using ::testing::HasSubstr;

// A checkpoint of whole tensors on one rank.
std::string Save(const std::string& root, const std::vector<SavedBox>& boxes) {
  Env& env = Env::Posix();
  const absl::StatusOr<std::string> folder = BeginSave(env, root, 1);
  EXPECT_TRUE(folder.ok()) << folder.status();
  const absl::StatusOr<ShardRecord> shard = WriteShard(env, *folder, 0, boxes);
  EXPECT_TRUE(shard.ok()) << shard.status();
  const absl::StatusOr<Committed> done = CommitCheckpoint(env, root, 1, *folder, {*shard}, {}, 1);
  EXPECT_TRUE(done.ok()) << done.status();
  return done->path;
}

template <typename T>
SavedBox Whole(const std::string& name, DType dtype, const Shape& shape, const std::vector<T>& values) {
  Shape zero;
  zero.rank = shape.rank;
  return {{name, dtype, shape, zero, shape}, reinterpret_cast<const std::byte*>(values.data())};
}

TEST(Diff, SameContentInAnotherLayoutIsEqual) {
  const TempDir a, b;
  const auto one = testing::SaveTestCheckpoint(Env::Posix(), a.path(), 5, 1, 1);
  const auto four = testing::SaveTestCheckpoint(Env::Posix(), b.path(), 5, 4, 1);
  ASSERT_TRUE(one.ok() && four.ok());
  const absl::StatusOr<CheckpointDiff> diff = DiffCheckpoints(Env::Posix(), one->path, four->path);
  ASSERT_TRUE(diff.ok()) << diff.status();
  EXPECT_TRUE(diff->differ.empty()) << diff->ToText();
  EXPECT_EQ(diff->tensors, std::ssize(testing::TestTensors()));
}

TEST(Diff, ValuesShapesAndMissingTensors) {
  const TempDir a, b;
  const std::vector<double> w = {1, 2, 3, 4, 5, 6}, w2 = {1, 2.5, 3, 4, 4, 6};
  const std::vector<float> f = {1, -0.0f}, f2 = {1, 0.0f}, nan = {std::numeric_limits<float>::quiet_NaN(), 9};
  const std::string x = Save(a.path(), {Whole("gone", DType::kF32, {2}, f), Whole("nan", DType::kF32, {2}, f),
                                        Whole("same", DType::kF32, {2}, f), Whole("shape", DType::kF64, {6}, w),
                                        Whole("w", DType::kF64, {2, 3}, w), Whole("zero", DType::kF32, {2}, f)});
  const std::string y = Save(b.path(), {Whole("nan", DType::kF32, {2}, nan), Whole("new", DType::kF32, {2}, f),
                                        Whole("same", DType::kF32, {2}, f), Whole("shape", DType::kF64, {2, 3}, w),
                                        Whole("w", DType::kF64, {2, 3}, w2), Whole("zero", DType::kF32, {2}, f2)});
  const absl::StatusOr<CheckpointDiff> diff = DiffCheckpoints(Env::Posix(), x, y);
  ASSERT_TRUE(diff.ok()) << diff.status();
  EXPECT_EQ(diff->ToText(),
            "gone   only in A\n"
            "nan    2 of 2 elements, max abs nan at [0], max rel 1\n"
            "new    only in B\n"
            "shape  f64[6] in A, f64[2, 3] in B\n"
            "w      2 of 6 elements, max abs 1 at [1, 1], max rel 0.2\n"
            "zero   1 of 2 elements, max abs 0 at [1], max rel 0\n"
            "6 of 7 tensors differ\n");
}

TEST(Diff, LargeTensorsAreReadInParts) {  // 3 slabs of 4 MiB
  const TempDir a, b;
  std::vector<double> v(3 * 500 * 1000, 1.0);
  const std::string x = Save(a.path(), {Whole("w", DType::kF64, {1500, 1000}, v)});
  v[1499 * 1000 + 7] = 3;
  const std::string y = Save(b.path(), {Whole("w", DType::kF64, {1500, 1000}, v)});
  const absl::StatusOr<CheckpointDiff> diff = DiffCheckpoints(Env::Posix(), x, y);
  ASSERT_TRUE(diff.ok()) << diff.status();
  EXPECT_THAT(diff->ToText(), HasSubstr("w  1 of 1500000 elements, max abs 2 at [1499, 7], max rel 0.667"));
}

TEST(Diff, NoCheckpointIsAnError) {
  const TempDir a;
  EXPECT_EQ(DiffCheckpoints(Env::Posix(), a.path(), a.path()).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace strata
