// Any layout's checkpoint fills any other layout's states, converts dtypes, and is refused where it is of another job.

#include "checkpoint/load_states.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/testing/fault_env.h"
#include "tests/testing/hand_plan.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using testing::FillMemory;
using testing::GetElement;
using testing::HandMemory;
using testing::HandPlans;
using testing::HandState;
using ::testing::HasSubstr;

class LoadStatesTest : public ::testing::Test {
 protected:
  CheckpointReader Save(const std::vector<Plan>& plans) {
    dir_ = std::make_unique<TempDir>();
    const absl::StatusOr<std::string> path = testing::SaveHandPlans(env_, dir_->path(), plans);
    EXPECT_TRUE(path.ok()) << path.status();
    absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open(env_, *path);
    EXPECT_TRUE(reader.ok()) << reader.status();
    return *std::move(reader);
  }

  // Memory of one rank, loaded over rubbish.
  HandMemory Load(CheckpointReader& reader, const Plan& plan) {
    HandMemory memory;
    for (const PlannedState& s : plan.states) {
      std::vector<std::byte>& bytes = memory.emplace_back(s.count * SizeOf(s.spec.dtype), std::byte{0xEE});
      const absl::Status status = LoadState(reader, s, bytes, LiveWeightsOf(plan));
      EXPECT_TRUE(status.ok()) << status;
    }
    return memory;
  }

  testing::FaultEnv env_;
  std::unique_ptr<TempDir> dir_;
};

using Random = std::mt19937;
int64_t Draw(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

struct RandomJob {
  std::vector<MeshAxis> axes;
  std::vector<HandState> states;
};

// A mesh of up to 12 ranks and random layouts of the same tensors: cut along a dim, in flat ranges, replicated, padded.
RandomJob MakeJob(Random& random, const std::vector<Shape>& models) {
  RandomJob job{{{"dp.o", static_cast<int>(Draw(random, 1, 2))},
                 {"dp.i", static_cast<int>(Draw(random, 1, 2))},
                 {"tp", static_cast<int>(Draw(random, 1, 3))}},
                {}};
  for (size_t i = 0; i < models.size(); ++i) {
    HandState s{.name = "t" + std::to_string(i), .dtype = DType::kF64, .model = models[i], .padded = models[i]};
    s.flat = static_cast<AxisSet>(Draw(random, 0, 3));
    if (models[i].rank > 0 && Draw(random, 0, 2) > 0) {
      const int dim = static_cast<int>(Draw(random, 0, models[i].rank - 1));
      s.layout[2] = Shard(dim);
      s.padded[dim] = (models[i][dim] + job.axes[2].size - 1) / job.axes[2].size * job.axes[2].size;
    }
    job.states.push_back(s);
  }
  return job;
}

TEST_F(LoadStatesTest, AnyLayoutFillsAnyOther) {
  Random random(3);
  const std::vector<Shape> models = {{}, {11}, {13, 6}, {5, 8}, {3, 4, 5}, {2, 3, 2, 4}, {1}, {7, 1}};
  for (int round = 0; round < 60; ++round) {
    const RandomJob a = MakeJob(random, models), b = MakeJob(random, models);
    CheckpointReader reader = Save(HandPlans(a.axes, a.states));
    const std::vector<Plan> plans = HandPlans(b.axes, b.states);
    const absl::Status fits = CheckLoads(reader, plans, LoadFor::kTraining);
    ASSERT_TRUE(fits.ok()) << fits;
    for (const Plan& plan : plans) ASSERT_EQ(Load(reader, plan), FillMemory(plan, 0)) << "round " << round;
  }
}

// A parameter with the states that its dtype brings along.
std::vector<Plan> Adam(DType dtype, const Shape& shape = {6, 4}, DType master = DType::kF32) {
  const DType sums = AccumulatorOf(dtype);
  std::vector<HandState> states = {
      {.name = "w", .dtype = dtype, .model = shape, .padded = shape},
      {.name = "w.exp_avg", .role = Role::kMoment1, .dtype = sums, .model = shape, .padded = shape},
      {.name = "w.exp_avg_sq", .role = Role::kMoment2, .dtype = sums, .model = shape, .padded = shape}};
  if (dtype == DType::kBF16) {
    states.push_back({.name = "w.master", .role = Role::kMaster, .dtype = master, .model = shape, .padded = shape});
  }
  return HandPlans({}, states);
}

double Saved(const char* name, int64_t i) { return testing::ElementValue(name, {i / 4, i % 4}); }
double Rounded(double v) { return static_cast<float>(BF16(static_cast<float>(v))); }

TEST_F(LoadStatesTest, Bf16FromFloat32TakesItsMasterAndRoundsIt) {
  CheckpointReader reader = Save(Adam(DType::kF32));
  const std::vector<Plan> job = Adam(DType::kBF16);
  ASSERT_TRUE(CheckLoads(reader, job, LoadFor::kTraining).ok());
  const HandMemory memory = Load(reader, job[0]);
  for (int64_t i = 0; i < 24; ++i) {
    EXPECT_EQ(GetElement(memory[3], DType::kF32, i), Saved("w", i));
    EXPECT_EQ(GetElement(memory[0], DType::kBF16, i), Rounded(Saved("w", i)));
    EXPECT_EQ(GetElement(memory[2], DType::kF32, i), Saved("w.exp_avg_sq", i));
  }
}

TEST_F(LoadStatesTest, Float32FromBf16TakesTheMaster) {
  CheckpointReader reader = Save(Adam(DType::kBF16));
  const std::vector<Plan> job = Adam(DType::kF32);
  ASSERT_TRUE(CheckLoads(reader, job, LoadFor::kTraining).ok());
  const HandMemory memory = Load(reader, job[0]);
  for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(GetElement(memory[0], DType::kF32, i), Saved("w.master", i));
  // Where both are bf16, the parameter is what was saved, not the master rounded again.
  const HandMemory same = Load(reader, Adam(DType::kBF16)[0]);
  for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(GetElement(same[0], DType::kBF16, i), Rounded(Saved("w", i)));
}

// Halves of masters are as exact as whole ones, whichever a checkpoint or a job has.
TEST_F(LoadStatesTest, MastersInHalvesAndWhole) {
  const std::vector<Plan> halves = Adam(DType::kBF16, {6, 4}, DType::kLow16);
  for (const DType saved : {DType::kBF16, DType::kF32, DType::kF64}) {
    CheckpointReader reader = Save(Adam(saved));
    const absl::Status fits = CheckLoads(reader, halves, LoadFor::kTraining);
    ASSERT_TRUE(fits.ok()) << fits;
    const HandMemory memory = Load(reader, halves[0]);
    for (int64_t i = 0; i < 24; ++i) {
      EXPECT_EQ(JoinHalvesAt(&memory[0][i * 2], &memory[3][i * 2]),
                static_cast<float>(Saved(saved == DType::kBF16 ? "w.master" : "w", i)));
    }
  }
  // From halves: as they were, and whole. What was saved as lower halves is any number of 16 bits.
  CheckpointReader reader = Save(halves);
  const HandMemory as_saved = FillMemory(halves[0], 0);
  EXPECT_EQ(Load(reader, halves[0]), as_saved);
  for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF64}) {
    const std::vector<Plan> whole = Adam(dtype);
    ASSERT_TRUE(CheckLoads(reader, whole, LoadFor::kTraining).ok());
    const HandMemory memory = Load(reader, whole[0]);
    for (int64_t i = 0; i < 24; ++i) {
      EXPECT_EQ(GetElement(memory[dtype == DType::kBF16 ? 3 : 0], dtype == DType::kBF16 ? DType::kF32 : dtype, i),
                JoinHalvesAt(&as_saved[0][i * 2], &as_saved[3][i * 2]));
    }
  }
}

TEST_F(LoadStatesTest, Float64FromFloat32AndBack) {
  CheckpointReader narrow = Save(Adam(DType::kF32));
  const HandMemory wide = Load(narrow, Adam(DType::kF64)[0]);
  for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(GetElement(wide[1], DType::kF64, i), Saved("w.exp_avg", i));
  CheckpointReader reader = Save(Adam(DType::kF64));
  EXPECT_EQ(Load(reader, Adam(DType::kF32)[0]), FillMemory(Adam(DType::kF32)[0], 0));
}

TEST_F(LoadStatesTest, AnotherModelIsRefusedByName) {
  CheckpointReader reader = Save(Adam(DType::kF32));
  const auto refused = [&](const std::vector<Plan>& plans, LoadFor purpose) {
    const absl::Status status = CheckLoads(reader, plans, purpose);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refused(Adam(DType::kF32, {6, 5}), LoadFor::kForward),
              HasSubstr("w is f32[6, 4] there and f32[6, 5] here"));
  const std::vector<Plan> other = HandPlans({}, {{.name = "v", .model = {2}, .padded = {2}}});
  EXPECT_THAT(refused(other, LoadFor::kTraining), HasSubstr("another model: v is not in it, w is not in this job"));
  // A forward pass needs the parameters that it has, and no optimizer.
  std::vector<Plan> forward = Adam(DType::kF32);
  forward[0].states.resize(1);
  EXPECT_TRUE(CheckLoads(reader, forward, LoadFor::kForward).ok());
}

TEST_F(LoadStatesTest, AnotherOptimizerIsRefusedByName) {
  const HandState w{.name = "w", .model = {6, 4}, .padded = {6, 4}};
  HandState momentum = w;
  momentum.name = "w.momentum";
  momentum.role = Role::kMoment1;
  CheckpointReader reader = Save(HandPlans({}, {w, momentum}));
  absl::Status status = CheckLoads(reader, Adam(DType::kF32), LoadFor::kTraining);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("another optimizer: it holds momentum of each parameter, this job needs exp_avg, exp_avg_sq"));
  CheckpointReader weights = Save(HandPlans({}, {w}));
  status = CheckLoads(weights, Adam(DType::kF32), LoadFor::kTraining);
  EXPECT_THAT(std::string(status.message()), HasSubstr("holds weights alone"));
  EXPECT_TRUE(CheckLoads(weights, HandPlans({}, {w}), LoadFor::kForward).ok());
}

}  // namespace
}  // namespace strata
