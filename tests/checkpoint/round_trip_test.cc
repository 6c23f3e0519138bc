// What is saved comes back, in any split; and any HDF5 program can read the files.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "checkpoint/catalog.h"
#include "checkpoint/reader.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/test_checkpoint.h"

namespace strata {
namespace {

using testing::CutBox;
using ::testing::HasSubstr;
using testing::TestContent;
using testing::TestTensor;

TEST(RoundTrip, WholeTensors) {
  for (const int ranks : {1, 2, 4, 7}) {
    const TempDir dir;
    const auto saved = testing::SaveTestCheckpoint(Env::Posix(), dir.path(), 5, ranks, 2);
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_TRUE(saved->cleanup.ok()) << saved->cleanup;
    EXPECT_EQ(saved->path, dir.path() + "/step-0000000005");
    const absl::Status check = testing::CheckTestCheckpoint(Env::Posix(), saved->path, 5);
    EXPECT_TRUE(check.ok()) << check;
    EXPECT_THAT(VerifyCheckpoint(Env::Posix(), saved->path), ::testing::IsEmpty());
  }
}

// Saved by 4 ranks, read as the boxes of 1 to 6 ranks.
TEST(RoundTrip, OtherSplits) {
  const TempDir dir;
  const auto saved = testing::SaveTestCheckpoint(Env::Posix(), dir.path(), 5, 4, 2);
  ASSERT_TRUE(saved.ok()) << saved.status();
  auto reader = CheckpointReader::Open(Env::Posix(), saved->path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  for (int ranks = 1; ranks <= 6; ++ranks) {
    for (int rank = 0; rank < ranks; ++rank) {
      const testing::RankBoxes wanted = testing::TestBoxes(rank, ranks, 5);
      for (size_t i = 0; i < wanted.boxes.size(); ++i) {
        std::vector<std::byte> out(wanted.memory[i].size());
        const absl::Status status = reader->Read(wanted.boxes[i], out);
        ASSERT_TRUE(status.ok()) << status;
        EXPECT_EQ(out, wanted.memory[i]) << wanted.boxes[i].name;
      }
    }
  }
}

// Thread ranks write at once, through records sent as text; the tensor spans blocks; a box begins and ends inside blocks.
TEST(RoundTrip, ThreadsAndLargeTensors) {
  const TempDir dir;
  const TestTensor big{"big", DType::kF32, {1500, 1201}};
  constexpr int kRanks = 2;
  const auto tmp_dir = BeginSave(Env::Posix(), dir.path(), 1);
  ASSERT_TRUE(tmp_dir.ok()) << tmp_dir.status();
  std::vector<std::string> texts(kRanks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      testing::RankBoxes mine;
      mine.Add(big, 1, {rank == 0 ? 0 : 1400, 0}, {rank == 0 ? 1400 : 100, 1201});
      const auto record = WriteShard(Env::Posix(), *tmp_dir, rank, mine.boxes);
      EXPECT_TRUE(record.ok()) << record.status();
      if (record.ok()) texts[rank] = ToJson(*record);
    });
  }
  for (std::thread& t : threads) t.join();
  std::vector<ShardRecord> records;
  for (const std::string& text : texts) {
    auto record = ParseShardRecord(text);
    ASSERT_TRUE(record.ok()) << record.status();
    records.push_back(*std::move(record));
  }
  EXPECT_EQ(records[0].file.block_crc32c.size(), 2u);
  const auto saved = CommitCheckpoint(Env::Posix(), dir.path(), 1, *tmp_dir, records, {}, 1);
  ASSERT_TRUE(saved.ok()) << saved.status();
  auto reader = CheckpointReader::Open(Env::Posix(), saved->path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  const std::vector<std::byte> content = TestContent(big, 1);
  for (const auto& [offset, size] : {std::pair<Shape, Shape>{{0, 0}, {1500, 1201}}, {{850, 600}, {600, 77}}}) {
    std::vector<std::byte> out(size.elements() * 4);
    const absl::Status status = reader->Read({"big", DType::kF32, big.shape, offset, size}, out);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(out, CutBox(content, DType::kF32, big.shape, offset, size));
  }
}

TEST(RoundTrip, ReadRefusesWhatIsNotThere) {
  const TempDir dir;
  const auto saved = testing::SaveTestCheckpoint(Env::Posix(), dir.path(), 5, 2, 2);
  ASSERT_TRUE(saved.ok()) << saved.status();
  auto reader = CheckpointReader::Open(Env::Posix(), saved->path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  std::vector<std::byte> out(13 * 6 * 4);
  const std::span<std::byte> all(out);
  const TensorBox good{"embed.weight", DType::kF32, {13, 6}, {0, 0}, {13, 6}};
  ASSERT_TRUE(reader->Read(good, all).ok());
  TensorBox bad = good;
  bad.name = "embed.wieght";
  EXPECT_EQ(reader->Read(bad, all).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(reader->Read(bad, all).message()), HasSubstr("no tensor embed.wieght"));
  bad = good;
  bad.dtype = DType::kI32;
  EXPECT_THAT(std::string(reader->Read(bad, all).message()),
              HasSubstr("embed.weight is f32[13, 6] there, not i32[13, 6]"));
  bad = good;
  bad.global = {12, 6};
  EXPECT_THAT(std::string(reader->Read(bad, all).message()), HasSubstr("not f32[12, 6]"));
  bad = good;
  bad.offset = {1, 0};
  EXPECT_EQ(reader->Read(bad, all).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(reader->Read(good, all.first(8)).code(), absl::StatusCode::kInvalidArgument);
}

TEST(RoundTrip, Hdf5ReadsTheData) {
  const TempDir dir;
  const TestTensor f32{"a", DType::kF32, {3, 4}}, bf16{"b.c", DType::kBF16, {4}};
  testing::RankBoxes mine;
  mine.Add(f32, 1, {1, 0}, {2, 4});
  mine.Add(bf16, 1, {0}, {4});
  const BF16 values[] = {BF16(1.0f), BF16(-3.140625f), BF16(0x1p-100f), BF16(65280.0f)};
  std::memcpy(mine.memory[1].data(), values, sizeof values);
  const auto record = WriteShard(Env::Posix(), dir.path(), 0, mine.boxes);
  ASSERT_TRUE(record.ok()) << record.status();
  const hid_t file = H5Fopen((dir.path() + "/data-00000.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const auto read = [file](const char* name) {
    std::vector<float> out(8);
    const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    EXPECT_GE(dataset, 0) << name;
    EXPECT_GE(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.data()), 0);
    EXPECT_GE(H5Dclose(dataset), 0);
    return out;
  };
  const std::vector<float> a = read("a[1:3, 0:4]"), b = read("b.c[0:4]");
  EXPECT_TRUE(std::ranges::equal(std::as_bytes(std::span(a)).first(32), std::span(mine.memory[0]).first(32)));
  EXPECT_EQ(std::vector<float>(b.begin(), b.begin() + 4), (std::vector<float>{1.0f, -3.140625f, 0x1p-100f, 65280.0f}));
  EXPECT_GE(H5Fclose(file), 0);
}

TEST(WriteShard, SameBoxesGiveTheSameFile) {
  const TempDir a, b;
  const testing::RankBoxes mine = testing::TestBoxes(0, 2, 9);
  const auto first = WriteShard(Env::Posix(), a.path(), 0, mine.boxes);
  const auto second = WriteShard(Env::Posix(), b.path(), 0, mine.boxes);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(ToJson(*first), ToJson(*second));
}

TEST(WriteShard, RankWithoutBoxes) {
  const TempDir dir;
  const auto record = WriteShard(Env::Posix(), dir.path(), 3, {});
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->file.name, "data-00003.h5");
  EXPECT_TRUE(record->tensors.empty());
}

TEST(WriteShard, RefusesBadBoxes) {
  const TempDir dir;
  const float data[4] = {};
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const SavedBox good{{"a", DType::kF32, {4}, {0}, {4}}, bytes};
  const auto code = [&](std::vector<SavedBox> boxes) {
    const TempDir fresh;
    return WriteShard(Env::Posix(), fresh.path(), 0, boxes).status().code();
  };
  EXPECT_EQ(code({good}), absl::StatusCode::kOk);
  EXPECT_EQ(code({good, good}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{{"a/b", DType::kF32, {4}, {0}, {4}}, bytes}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{{"", DType::kF32, {4}, {0}, {4}}, bytes}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{{"a", DType::kF32, {4}, {1}, {4}}, bytes}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{{"a", DType::kF32, {4}, {0}, {4}}, nullptr}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{{"a", DType::kF32, {8}, {0}, {4}}, bytes}, {{"a", DType::kI32, {8}, {4}, {4}}, bytes}}),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(WriteShard(Env::Posix(), dir.path(), 0, {}).ok());
  EXPECT_EQ(WriteShard(Env::Posix(), dir.path(), 0, {}).status().code(), absl::StatusCode::kAlreadyExists);
  const auto missing = WriteShard(Env::Posix(), dir.path() + "/none", 0, {});
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("No such file"));
}

TEST(WriteShard, FindsABitThatFlippedOnTheWay) {
  const TempDir dir;
  testing::FaultEnv env;
  env.FlipBitOfNextWrite();
  const testing::RankBoxes mine = testing::TestBoxes(0, 1, 1);
  EXPECT_EQ(WriteShard(env, dir.path(), 0, mine.boxes).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace strata
