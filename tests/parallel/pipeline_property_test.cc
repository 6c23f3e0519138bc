// Random (schedule, ranks, chunks, micro-batches, durations, options): whatever is legal runs, in the simulators and by
// rendezvous, and holds the bounds that all schedules hold; whatever is not is refused with legal values.

#include <gtest/gtest.h>

#include <ctime>
#include <random>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/rendezvous.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/text.h"
#include "parallel/pipeline/validate.h"

namespace strata {
namespace {

class Draw {
 public:
  explicit Draw(uint32_t seed) : random_(seed) {}
  int Int(int low, int high) { return low + static_cast<int>(random_() % static_cast<uint32_t>(high - low + 1)); }
  double Real(double low, double high) { return low + (high - low) * static_cast<double>(random_()) / 4294967295.0; }

  ScheduleSpec Spec() {
    const auto names = ScheduleNames();
    ScheduleSpec spec{.name = std::string(names[Int(0, static_cast<int>(names.size()) - 1)])};
    spec.ranks = Int(1, 8);
    spec.chunks = Int(0, 3);
    spec.micro_batches = Int(1, 4) == 1 ? Int(1, 24) : spec.ranks * Int(1, 4);
    if (Int(1, 4) == 1) spec.group = Int(1, 12);
    if (Int(1, 3) == 1) spec.replicas = 2;
    if (Int(1, 2) == 1) spec.memory_cap = Real(0.8, 12);
    return spec;
  }
  StageDurations Durations(int stages) {
    StageDurations d;
    for (int s = 0; s < stages; ++s)
      d.stages.push_back({Real(0.2, 2), Real(0.2, 2), Real(0.2, 2), Real(0, 1), Real(0, 1)});
    d.last_micro_batch = Int(1, 2) == 1 ? 1 : Real(0.1, 1);
    d.latency = Int(1, 2) == 1 ? 0 : Real(0, 0.5);
    d.boundary_bytes = Real(0, 100);
    d.bytes_per_s = 1000;
    return d;
  }
  LowerOptions Options(const Schedule& s) {
    LowerOptions o{.zero = Int(0, 3)};
    if (o.zero == 3) o.resident_stages = Int(2, 4);
    if (Int(1, 3) == 1) o.tied = {{0, s.stages() - 1}};
    return o;
  }

 private:
  std::mt19937 random_;
};

// F of all stages and B, or I, back, for one micro-batch.
double CriticalPath(const Schedule& s, const StageDurations& d, int micro_batch) {
  double time = 0;
  for (int stage = 0; stage < s.stages(); ++stage) {
    const Action f{.kind = Action::kF, .stage = static_cast<int16_t>(stage), .micro_batch = micro_batch};
    Action i = f;
    i.kind = Action::kI;
    time += d.Of(f, s.micro_batches) + d.Of(i, s.micro_batches);
    const std::vector<int>& rank_of = s.rank_of[ReplicaOf(s, micro_batch)];
    if (stage > 0 && rank_of[stage] != rank_of[stage - 1]) time += 2 * d.Transfer(micro_batch, s.micro_batches);
  }
  return time;
}

void ExpectSound(const Schedule& s, Draw& draw) {
  StageDurations d = draw.Durations(s.stages());
  const LowerOptions options = draw.Options(s);
  const absl::StatusOr<Timeline> compute = Simulate(s, d);
  ASSERT_TRUE(compute.ok()) << compute.status();
  const double makespan = compute->makespan();
  for (double busy : BusyTimes(*compute)) EXPECT_GE(makespan, busy - 1e-9);
  EXPECT_GE(makespan, CriticalPath(s, d, 0) - 1e-9);

  const absl::StatusOr<LoweredSchedule> lowered = LowerSchedule(s, d, options);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(ValidateLowered(s, *lowered, options), absl::OkStatus());
  for (Grouping grouping : {Grouping::kOneByOne, Grouping::kGroups})
    EXPECT_EQ(ExecuteRendezvous(*lowered, grouping), absl::OkStatus());
  for (Streams streams : {Streams::kOne, Streams::kCompute, Streams::kEveryChannel}) {
    const absl::StatusOr<Timeline> t = Simulate(s, *lowered, d, streams);
    ASSERT_TRUE(t.ok()) << t.status();
    EXPECT_GE(t->makespan(), makespan - 1e-9);  // the same order, and more to wait for
    for (const std::vector<TimedAction>& rank : t->ranks) {
      for (const TimedAction& a : rank) EXPECT_LE(a.begin, a.end);
    }
  }
  // Peaks never exceed what was declared.
  for (int r = 0; r < s.ranks; ++r) {
    int slots = 0;
    for (int replica = 0; replica < s.replicas; ++replica) {
      for (int stage = 0; stage < s.stages(); ++stage) {
        if (s.rank_of[replica][stage] == r) slots += lowered->activation_slots[replica][stage];
        EXPECT_GE(lowered->slots[replica][stage], lowered->activation_slots[replica][stage]);
      }
    }
    EXPECT_GE(slots, PeakChunks(s)[r]);
  }
  // Nothing gets faster when a stage gets slower.
  d.stages[draw.Int(0, s.stages() - 1)].forward *= 1.5;
  EXPECT_GE(Simulate(s, d)->makespan(), makespan - 1e-9);
  // The text says all.
  const absl::StatusOr<Schedule> again = ParseSchedule(DumpSchedule(s), s.name);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->rank_of, s.rank_of);
  EXPECT_EQ(DumpSchedule(*again), DumpSchedule(s));
}

// Every value that the message offers must be legal: "nearest legal: 8 micro-batches, or 4 ranks".
void ExpectNearestIsLegal(const ScheduleSpec& spec, const std::string& message) {
  const std::pair<const char*, int ScheduleSpec::*> knobs[] = {
      {"a group", &ScheduleSpec::group}, {"rank", &ScheduleSpec::ranks}, {"micro-batch", &ScheduleSpec::micro_batches}};
  const std::pair<std::string, std::string> parts = absl::StrSplit(message, "nearest legal: ");
  for (const std::string& offer : std::vector<std::string>(absl::StrSplit(parts.second, ", or "))) {
    for (const auto& [what, field] : knobs) {
      if (!absl::StrContains(offer, what)) continue;
      ScheduleSpec near = spec;
      ASSERT_TRUE(absl::SimpleAtoi(offer.substr(0, offer.find(' ')), &(near.*field))) << message;
      EXPECT_EQ(MakeSchedule(near).status(), absl::OkStatus()) << message;
      break;
    }
  }
}

TEST(PipelineProperty, LegalSchedulesRunAndIllegalOnesAreRefused) {
  Draw draw(1);
  int legal = 0, refused = 0;
  while (legal < 2000 && !HasFailure()) {
    const ScheduleSpec spec = draw.Spec();
    const absl::StatusOr<Schedule> s = MakeSchedule(spec);
    SCOPED_TRACE(absl::StrFormat("%s p=%d v=%d m=%d group=%d replicas=%d cap=%g", spec.name, spec.ranks, spec.chunks,
                                 spec.micro_batches, spec.group, spec.replicas, spec.memory_cap));
    if (s.ok()) {
      ++legal;
      ExpectSound(*s, draw);
    } else {
      ++refused;
      EXPECT_EQ(s.status().code(), absl::StatusCode::kInvalidArgument);
      ExpectNearestIsLegal(spec, std::string(s.status().message()));
    }
  }
  EXPECT_GT(refused, 200);
}

// Seconds of processor time, so that a busy machine does not count.
template <class Work>
double Seconds(const Work& work) {
  const std::clock_t begin = std::clock();
  work();
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

TEST(PipelineProperty, LargeOnesAreFast) {
  for (const auto& [name, ranks, chunks] : {std::tuple("1f1b", 64, 1), {"interleaved", 16, 4}}) {
    const Schedule s = MakeSchedule({.name = name, .ranks = ranks, .chunks = chunks, .micro_batches = 512}).value();
    StageDurations d = StageDurations::Uniform(64, {.forward = 1, .input_grad = 1, .weight_grad = 1});
    d.latency = 0.01;
    EXPECT_LT(Seconds([&] { EXPECT_TRUE(Simulate(s, d).ok()); }), 2);
    LoweredSchedule l;
    EXPECT_LT(Seconds([&] { l = LowerSchedule(s, d).value(); }), 2);
    EXPECT_LT(Seconds([&] { EXPECT_TRUE(Simulate(s, l, d, Streams::kEveryChannel).ok()); }), 2);
  }
}

// Text with a few characters changed is refused, or is a schedule like any other.
TEST(PipelineProperty, ChangedTextIsRefusedOrSound) {
  Draw draw(2);
  int refused = 0, sound = 0;
  for (int i = 0; i < 2000; ++i) {
    const absl::StatusOr<Schedule> s = MakeSchedule(draw.Spec());
    if (!s.ok() || s->ranks * s->chunks > 6) continue;
    std::string text = DumpSchedule(*s);
    constexpr std::string_view kBytes = "0123456789FBIW+,\n #-=\0x";
    for (int k = draw.Int(1, 3); k > 0; --k) {
      const size_t at = draw.Int(0, static_cast<int>(text.size()) - 1);
      const char byte = kBytes[draw.Int(0, static_cast<int>(kBytes.size()) - 1)];
      if (draw.Int(0, 2) == 0) {
        text.erase(at, draw.Int(1, 8));
      } else {
        text[at] = byte;
      }
      if (text.empty()) break;
    }
    const absl::StatusOr<Schedule> again = ParseSchedule(text, "changed");
    if (!again.ok()) {
      ++refused;
      continue;
    }
    ++sound;
    EXPECT_EQ(LowerSchedule(*again, StageDurations::Uniform(again->stages(), {})).status(), absl::OkStatus()) << text;
  }
  EXPECT_GT(refused, 300);
  EXPECT_GT(sound, 20);
}

}  // namespace
}  // namespace strata
