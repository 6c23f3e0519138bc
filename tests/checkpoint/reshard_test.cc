// A checkpoint rewritten for another layout is the one that the other layout would have saved.

#include "checkpoint/reshard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "checkpoint/catalog.h"
#include "checkpoint/diff.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/hand_plan.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using testing::FaultEnv;
using testing::HandPlans;
using testing::HandState;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<HandState> Tensors(const Layout& layout, AxisSet flat) {
  return {{.name = "a", .model = {13, 6}, .padded = {16, 6}, .layout = layout, .flat = flat},
          {.name = "a.exp_avg",
           .role = Role::kMoment1,
           .model = {13, 6},
           .padded = {16, 6},
           .layout = layout,
           .flat = flat},
          {.name = "b", .dtype = DType::kF64, .model = {4, 3, 8}, .padded = {4, 3, 8}, .layout = layout, .flat = flat},
          {.name = "c", .dtype = DType::kBF16, .model = {}, .padded = {}, .flat = flat}};
}
std::vector<Plan> TwoByTwo() { return HandPlans({{"dp", 2}, {"tp", 2}}, Tensors({Replicate(), Shard(0)}, 1)); }
std::vector<Plan> FourRanges() { return HandPlans({{"dp", 4}}, Tensors({}, 1)); }

class ReshardTest : public ::testing::Test {
 protected:
  ReshardTest() : from_(Save("from", TwoByTwo())) {}

  std::string Save(const std::string& name, const std::vector<Plan>& plans) {
    const absl::StatusOr<std::string> path = testing::SaveHandPlans(env_, dir_.path(name), plans);
    EXPECT_TRUE(path.ok()) << path.status();
    return *path;
  }
  CheckpointReader Open(Env& env, const std::string& path) {
    absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open(env, path);
    EXPECT_TRUE(reader.ok()) << reader.status();
    return *std::move(reader);
  }
  void ExpectEqual(const std::string& a, const std::string& b) {
    EXPECT_THAT(VerifyCheckpoint(env_, b), IsEmpty());
    const auto diff = DiffCheckpoints(env_, a, b);
    ASSERT_TRUE(diff.ok()) << diff.status();
    EXPECT_EQ(diff->tensors, 4);
    EXPECT_TRUE(diff->differ.empty()) << diff->ToText();
  }

  FaultEnv env_;
  const TempDir dir_;
  const std::string from_;
};

TEST_F(ReshardTest, IsWhatTheOtherJobSaves) {
  const std::string want = Save("want", FourRanges()), got = dir_.path("got");
  CheckpointReader reader = Open(env_, from_);
  const auto target = TargetOfPlans(reader, FourRanges(), "dp=4");
  ASSERT_TRUE(target.ok()) << target.status();
  const absl::Status status = Reshard(env_, reader, got + "/", *target);
  ASSERT_TRUE(status.ok()) << status;
  ExpectEqual(from_, got);
  for (int rank = 0; rank < 4; ++rank) {
    const std::string file = "/" + DataFileName(rank);
    EXPECT_EQ(ReadText(env_, got + file).value(), ReadText(env_, want + file).value()) << rank;
  }
  CheckpointReader result = Open(env_, got);
  EXPECT_EQ(result.meta().mesh, "dp=4");
  EXPECT_EQ(result.step(), reader.step());
  EXPECT_EQ(result.meta().next_sample, reader.meta().next_sample);
}

TEST_F(ReshardTest, FilesOfEqualSize) {
  for (const int files : {1, 3, 7, 400}) {
    CheckpointReader reader = Open(env_, from_);
    const auto target = TargetOfFiles(reader, files);
    ASSERT_TRUE(target.ok()) << target.status();
    const std::string to = dir_.path(absl::StrFormat("files%d", files));
    const absl::Status status = Reshard(env_, reader, to, *target);
    ASSERT_TRUE(status.ok()) << status;
    ExpectEqual(from_, to);
    EXPECT_EQ(Open(env_, to).manifest().files.size(), static_cast<size_t>(files));
    if (files > 7) continue;  // more files than some have elements
    for (const auto& boxes : target->files) {
      int64_t bytes = 0;
      for (const TensorBox& box : boxes) bytes += box.size.elements() * SizeOf(box.dtype);
      EXPECT_NEAR(static_cast<double>(bytes), (2 * 78 * 4 + 96 * 8 + 2) / static_cast<double>(files), 8);
    }
  }
  CheckpointReader reader = Open(env_, from_);
  EXPECT_EQ(TargetOfFiles(reader, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

// A tensor of several blocks of the file, cut by columns: the slabs are boxes that begin and end anywhere.
TEST_F(ReshardTest, TensorsOfManyBlocks) {
  const auto plans = [](int tp, int dim) {
    return HandPlans(
        {{"tp", tp}},
        {{.name = "big", .dtype = DType::kF64, .model = {900, 900}, .padded = {900, 900}, .layout = {Shard(dim)}}});
  };
  const std::string from = Save("rows", plans(2, 0)), want = Save("columns", plans(3, 1)), to = dir_.path("got");
  CheckpointReader reader = Open(env_, from);
  const auto target = TargetOfPlans(reader, plans(3, 1), "tp=3");
  ASSERT_TRUE(target.ok()) << target.status();
  ASSERT_TRUE(Reshard(env_, reader, to, *target).ok());
  for (int rank = 0; rank < 3; ++rank) {
    const std::string file = "/" + DataFileName(rank);
    EXPECT_TRUE(ReadText(env_, to + file).value() == ReadText(env_, want + file).value()) << rank;
  }
}

TEST_F(ReshardTest, RefusesWhatIsThereAndOtherJobs) {
  CheckpointReader reader = Open(env_, from_);
  const auto one = TargetOfFiles(reader, 1);
  const std::string text = ReadText(env_, from_ + "/manifest.json").value();
  EXPECT_EQ(Reshard(env_, reader, from_, *one).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReadText(env_, from_ + "/manifest.json").value(), text);

  std::vector<HandState> other = Tensors({}, 0);
  other[2].dtype = DType::kF32;
  EXPECT_THAT(std::string(TargetOfPlans(reader, HandPlans({}, other), "").status().message()),
              HasSubstr("b is f64[4, 3, 8] there and f32[4, 3, 8] in the job"));
  other.pop_back();
  other[2].dtype = DType::kF64;
  EXPECT_THAT(std::string(TargetOfPlans(reader, HandPlans({}, other), "").status().message()),
              HasSubstr("c is not in the job"));
}

// Whatever operation fails, the result is not there, nor anything of it, and the next attempt works.
TEST_F(ReshardTest, FailsAsAWhole) {
  int operations = 0;
  for (int k = 1;; ++k) {
    int left = k;
    FaultEnv failing([&](std::string_view operation, const std::string& path) {
      ++operations;
      if (--left == 0) return absl::UnavailableError(absl::StrFormat("%s: %s failed", path, std::string(operation)));
      return absl::OkStatus();
    });
    const std::string to = dir_.path(absl::StrFormat("to%d", k));
    absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open(failing, from_);
    if (!reader.ok()) continue;
    const auto target = TargetOfFiles(*reader, 2);
    const absl::Status status = Reshard(failing, *reader, to, *target);
    if (left > 0) {
      ASSERT_TRUE(status.ok()) << status;
      break;
    }
    EXPECT_FALSE(status.ok()) << k;
    if (env_.Exists(to)) {  // only its folder was not synced
      EXPECT_THAT(std::string(status.message()), HasSubstr("syncdir"));
      ExpectEqual(from_, to);
      continue;
    }
    EXPECT_FALSE(env_.Exists(to + ".tmp-0")) << k;
    CheckpointReader again = Open(env_, from_);
    ASSERT_TRUE(Reshard(env_, again, to, *target).ok()) << k;
    ExpectEqual(from_, to);
  }
  EXPECT_GT(operations, 100);
}

TEST_F(ReshardTest, WhatAKilledOneLeftMakesWay) {
  const std::string to = dir_.path("to");
  ASSERT_TRUE(env_.MakeDirs(to + ".tmp-0").ok());
  ASSERT_TRUE(WriteTextAtomically(env_, to + ".tmp-0/data-00000.h5", "half of it").ok());
  CheckpointReader reader = Open(env_, from_);
  const absl::Status status = Reshard(env_, reader, to, *TargetOfFiles(reader, 1));
  ASSERT_TRUE(status.ok()) << status;
  ExpectEqual(from_, to);
  EXPECT_FALSE(env_.Exists(to + ".tmp-0"));
}

TEST_F(ReshardTest, NoDamageIsCopied) {
  const std::string file = from_ + "/data-00003.h5";
  std::string bytes = ReadText(env_, file).value();
  bytes[bytes.size() / 2] ^= 1;
  ASSERT_TRUE(WriteTextAtomically(env_, file, bytes).ok());
  CheckpointReader reader = Open(env_, from_);
  const absl::Status status = Reshard(env_, reader, dir_.path("to"), *TargetOfFiles(reader, 1));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_FALSE(env_.Exists(dir_.path("to")));
}

}  // namespace
}  // namespace strata
