// What a rank stores of a tensor as boxes of it, and which rank saves what.

#include "checkpoint/pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "absl/strings/str_format.h"
#include "tests/testing/hand_plan.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using testing::HandPlans;
using testing::HandState;

using Random = std::mt19937;
int64_t Draw(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

Shape RandomShape(Random& random, int rank) {
  Shape shape;
  for (int d = 0; d < rank; ++d) shape[shape.rank++] = Draw(random, 1, d == 0 ? 7 : 5);
  return shape;
}

// Row-major position of element i of a box in a tensor of shape `whole`.
int64_t Position(const Shape& whole, const Shape& offset, const Shape& size, int64_t i) {
  int64_t at = 0, stride = 1;
  for (int d = size.rank - 1; d >= 0; --d) {
    at += (offset[d] + i % size[d]) * stride;
    i /= size[d];
    stride *= whole[d];
  }
  return at;
}

TEST(BoxesOfRange, AreTheRangeInOrder) {
  Random random(1);
  for (int round = 0; round < 3000; ++round) {
    const Shape shape = RandomShape(random, static_cast<int>(Draw(random, 0, 5)));
    const int64_t first = Draw(random, 0, shape.elements() - 1), count = Draw(random, 0, shape.elements() - first);
    int64_t next = first;
    int boxes = 0;
    ForEachBoxOfRange(shape, first, count, [&](const Shape& offset, const Shape& size) {
      ++boxes;
      ASSERT_TRUE(CheckBox(shape, offset, size).ok());
      for (int64_t i = 0; i < size.elements(); ++i) ASSERT_EQ(Position(shape, offset, size, i), next++);
    });
    ASSERT_EQ(next, first + count) << ToString(shape);
    ASSERT_LE(boxes, std::max(1, 2 * shape.rank - 1)) << ToString(shape) << " from " << first << " on " << count;
  }
}

std::vector<std::string> Names(const std::vector<Piece>& pieces) {
  std::vector<std::string> names;
  for (const Piece& p : pieces) {
    names.push_back(absl::StrFormat("%s at %d", BoxName(p.box.offset, p.box.size), p.byte_offset));
  }
  return names;
}

PlannedState F32State(const Shape& padded, const Shape& model, const LocalBox& box, int64_t first, int64_t count) {
  return {
      .name = "w", .spec = {DType::kF32, padded, {}}, .box = box, .first = first, .count = count, .model_shape = model};
}

TEST(Pieces, OfARangeOfAShard) {
  // Rows 4 to 7 of a matrix of 8 x 6, of which elements 4 to 20 of 24 are stored.
  const PlannedState s = F32State({8, 6}, {8, 6}, {{4, 6}, {4, 0}}, 4, 17);
  EXPECT_THAT(Names(PiecesOf(s)), ElementsAre("[4:5, 4:6] at 0", "[5:7, 0:6] at 8", "[7:8, 0:3] at 56"));
}

TEST(Pieces, PaddedRowsAreInNone) {
  EXPECT_THAT(Names(PiecesOf(F32State({8, 6}, {7, 6}, {{4, 6}, {4, 0}}, 0, 24))), ElementsAre("[4:7, 0:6] at 0"));
  EXPECT_THAT(Names(PiecesOf(F32State({8, 6}, {4, 6}, {{4, 6}, {4, 0}}, 0, 24))), ElementsAre());
  EXPECT_THAT(Names(PiecesOf(F32State({2, 6}, {2, 5}, {{2, 6}, {0, 0}}, 0, 12))),
              ElementsAre("[0:1, 0:5] at 0", "[1:2, 0:5] at 24"));
}

// Every stored element that is not padding is in one piece, at its place in memory.
TEST(Pieces, CoverWhatIsStoredOnce) {
  Random random(2);
  for (int round = 0; round < 3000; ++round) {
    const int rank = static_cast<int>(Draw(random, 0, 4));
    const Shape model = RandomShape(random, rank);
    Shape padded = model;
    for (int d = 0; d < rank; ++d) padded[d] += Draw(random, 0, 3) == 0 ? Draw(random, 0, 4) : 0;
    LocalBox box{padded, padded};
    for (int d = 0; d < rank; ++d) {
      box.origin[d] = Draw(random, 0, padded[d] - 1);
      box.shape[d] = Draw(random, 1, padded[d] - box.origin[d]);
    }
    const int64_t first = Draw(random, 0, box.shape.elements() - 1);
    const int64_t count = Draw(random, 0, box.shape.elements() - first);
    std::map<int64_t, int64_t> want, got;  // position in the model's tensor -> byte of memory
    for (int64_t i = first; i < first + count; ++i) {
      Shape index = box.shape, one = box.shape;
      int64_t rest = i;
      bool real = true;
      for (int d = rank - 1; d >= 0; --d) {
        index[d] = box.origin[d] + rest % box.shape[d];
        one[d] = 1;
        rest /= box.shape[d];
        real &= index[d] < model[d];
      }
      if (real) want[Position(model, index, one, 0)] = (i - first) * 4;
    }
    for (const Piece& p : PiecesOf(F32State(padded, model, box, first, count))) {
      ASSERT_TRUE(CheckBox(model, p.box.offset, p.box.size).ok());
      ASSERT_EQ(p.box.global, model);
      for (int64_t i = 0; i < p.box.size.elements(); ++i) {
        ASSERT_TRUE(got.emplace(Position(model, p.box.offset, p.box.size, i), p.byte_offset + 4 * i).second);
      }
    }
    ASSERT_EQ(got, want) << ToString(model) << " padded to " << ToString(padded);
  }
}

// Names and ranges of what each rank saves.
std::vector<std::string> Saved(const std::vector<Plan>& plans, int rank) {
  std::vector<std::string> text;
  const std::vector<std::vector<PlannedState>> states = StatesToSave(plans);
  for (const PlannedState& s : states[rank]) {
    text.push_back(absl::StrFormat("%s %d+%d @%d", s.name, s.first, s.count, s.ref.offset));
  }
  return text;
}

TEST(StatesToSave, OneOwnerAnElement) {
  const std::vector<MeshAxis> mesh = {{"dp", 2}, {"tp", 2}};
  const Layout by_tp = {Replicate(), Shard(0)};
  const std::vector<Plan> plans =
      HandPlans(mesh, {
                          {.name = "whole", .model = {8}, .padded = {8}},
                          {.name = "cut", .model = {8}, .padded = {8}, .layout = by_tp},
                          {.name = "flat", .model = {8}, .padded = {8}, .flat = 1},
                          {.name = "both", .model = {8}, .padded = {8}, .layout = by_tp, .flat = 1},
                          {.name = "grad.x", .role = Role::kGrad, .model = {8}, .padded = {8}},
                          {.name = "loss", .role = Role::kBuffer, .model = {}, .padded = {}},
                          {.name = "bucket.0.params", .model = {8}, .padded = {8}},
                      });
  EXPECT_THAT(Saved(plans, 0), ElementsAre("whole 0+8 @0", "cut 0+4 @0", "flat 0+2 @0", "both 0+1 @0"));
  EXPECT_THAT(Saved(plans, 1), ElementsAre("cut 0+4 @0", "both 0+1 @0"));
  EXPECT_THAT(Saved(plans, 2), ElementsAre("flat 2+6 @0", "both 1+3 @0"));
  EXPECT_THAT(Saved(plans, 3), ElementsAre("both 1+3 @0"));
}

// A small tensor lies whole in the share of a rank that is not the first; a tied one is in two stages, in unlike ranges.
TEST(StatesToSave, WhereverTheElementsAre) {
  std::vector<Plan> plans(4);
  const auto add = [&](int rank, const std::string& name, int64_t first, int64_t count) {
    PlannedState s = F32State({10}, {10}, {{10}, {0}}, first, count);
    s.name = name;
    s.ref.offset = 1000;
    plans[rank].states.push_back(s);
  };
  add(0, "bias", 0, 0);
  add(1, "bias", 0, 10);
  add(0, "tied", 0, 4);
  add(1, "tied", 6, 4);
  add(2, "tied", 0, 7);
  add(3, "tied", 7, 3);
  EXPECT_THAT(Saved(plans, 0), ElementsAre("tied 0+4 @1000"));
  EXPECT_THAT(Saved(plans, 1), ElementsAre("bias 0+10 @1000", "tied 6+4 @1000"));
  EXPECT_THAT(Saved(plans, 2), ElementsAre("tied 4+2 @1016"));
  EXPECT_THAT(Saved(plans, 3), ElementsAre());
}

}  // namespace
}  // namespace strata
