#include "checkpoint/box.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "core/base/philox.h"
#include "tests/testing/test_checkpoint.h"

namespace strata {
namespace {

using testing::CutBox;

// A random box of a tensor.
std::pair<Shape, Shape> RandomBox(const Shape& global, uint64_t index) {
  Shape offset = global, size = global;
  for (int d = 0; d < global.rank; ++d) {
    const PhiloxBlock r = Philox(3, static_cast<uint64_t>(d), index);
    offset[d] = r[0] % global[d];
    size[d] = 1 + r[1] % (global[d] - offset[d]);
  }
  return {offset, size};
}

// Copying the runs gives the common part, element by element; runs rise, and none is cut in two.
TEST(Box, RunsCopyTheCommonPart) {
  const Shape global{4, 3, 5};
  std::vector<std::byte> whole(global.elements() * 2);
  for (size_t i = 0; i < whole.size(); ++i) whole[i] = static_cast<std::byte>(i);
  int met = 0;
  for (uint64_t i = 0; i < 400; ++i) {
    const auto [from_offset, from_size] = RandomBox(global, 2 * i);
    const auto [to_offset, to_size] = RandomBox(global, 2 * i + 1);
    const auto from = CutBox(whole, DType::kBF16, global, from_offset, from_size);
    std::vector<std::byte> to(to_size.elements() * 2, std::byte{0xee});
    int64_t last_from = -1, last_to = -1, copied = 0;
    const auto copy = [&, &from = from](int64_t at, int64_t out, int64_t bytes) {
      EXPECT_TRUE(at > last_from || (at == last_from && out > last_to));
      EXPECT_FALSE(at == last_from && out == last_to) << "a run that could be longer";
      std::memcpy(&to[out], &from[at], bytes);
      last_from = at + bytes, last_to = out + bytes, copied += bytes;
      return absl::OkStatus();
    };
    ASSERT_TRUE(ForEachRun(from_offset, from_size, to_offset, to_size, 2, copy).ok());
    const auto want = CutBox(whole, DType::kBF16, global, to_offset, to_size);
    int64_t common = 1;
    for (int d = 0; d < 3; ++d) {
      common *= std::max<int64_t>(0, std::min(from_offset[d] + from_size[d], to_offset[d] + to_size[d]) -
                                         std::max(from_offset[d], to_offset[d]));
    }
    EXPECT_EQ(copied, common * 2);
    EXPECT_EQ(BoxesOverlap(from_offset, from_size, to_offset, to_size), common > 0);
    for (size_t b = 0; b < to.size(); ++b) {
      if (to[b] != std::byte{0xee}) {
        EXPECT_EQ(to[b], want[b]);
      }
    }
    met += common > 0;
  }
  EXPECT_GT(met, 50);
}

TEST(Box, WholeTensorIsOneRun) {
  const Shape global{4, 3, 5}, origin{0, 0, 0};
  int runs = 0;
  const auto count = [&](int64_t from, int64_t to, int64_t bytes) {
    EXPECT_EQ(from, 0);
    EXPECT_EQ(to, 0);
    EXPECT_EQ(bytes, 240);
    ++runs;
    return absl::OkStatus();
  };
  ASSERT_TRUE(ForEachRun(origin, global, origin, global, 4, count).ok());
  EXPECT_EQ(runs, 1);
}

TEST(Box, ElementsAreChecked) {
  EXPECT_EQ(CheckedElements({}), 1);
  EXPECT_EQ(CheckedElements({2, 3}), 6);
  EXPECT_EQ(CheckedElements({kMaxTensorElements}), kMaxTensorElements);
  EXPECT_FALSE(CheckedElements({kMaxTensorElements, 2}));
  EXPECT_FALSE(CheckedElements({int64_t{1} << 62, 4}));
  EXPECT_FALSE(CheckedElements({3, 0}));
  EXPECT_FALSE(CheckedElements({-1, -1}));
}

TEST(Box, MustLieInside) {
  EXPECT_TRUE(CheckBox({4, 4}, {3, 0}, {1, 4}).ok());
  EXPECT_FALSE(CheckBox({4, 4}, {3, 0}, {2, 4}).ok());
  EXPECT_FALSE(CheckBox({4, 4}, {-1, 0}, {1, 4}).ok());
  EXPECT_FALSE(CheckBox({4, 4}, {0, 0}, {0, 4}).ok());
  EXPECT_FALSE(CheckBox({4, 4}, {0}, {4}).ok());
  EXPECT_FALSE(CheckBox({4}, {INT64_MAX}, {INT64_MAX}).ok());
}

}  // namespace
}  // namespace strata
