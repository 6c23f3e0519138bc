#include "launch/job/pipeline_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "absl/strings/match.h"
#include "core/base/env.h"
#include "launch/job/simulation_report.h"
#include "launch/verbs/verbs.h"
#include "tests/launch/small_run.h"

namespace strata {
namespace {

using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

constexpr double kClose = 1e-9;

JobPipeline PipelineOf(const std::string& name, int ranks, int micro_batches) {
  JobPipeline p;
  p.schedule = MakeSchedule({.name = name, .ranks = ranks, .micro_batches = micro_batches}).value();
  p.train = LowerSchedule(p.schedule, StageDurations::Uniform(p.schedule.stages(), {})).value();
  return p;
}

// Uneven stages and edges.
StageDurations Planted(const JobPipeline& p) {
  StageDurations d;
  for (int s = 0; s < p.schedule.stages(); ++s) {
    const double x = 1 + 0.125 * s;
    d.stages.push_back({.forward = x, .input_grad = 1.25 * x, .weight_grad = 0.75 * x, .update = 0.5 + 0.25 * s});
  }
  for (size_t e = 0; e < p.train.edges.size(); ++e) {
    const bool local = p.train.edges[e].from == p.train.edges[e].to;
    d.edges.push_back(local ? 0 : 0.05 + 0.01 * static_cast<double>(e));
  }
  return d;
}

// The profile of a step that ran like `run`, every rank by a clock of its own, and members of a pair one after the other.
class Recording {
 public:
  Recording(const JobPipeline& p, const StageDurations& d, const Timeline& run, Streams streams) {
    for (size_t r = 0; r < run.ranks.size(); ++r) {
      profile.emplace_back();
      clock_ = 7.5 * static_cast<double>(r);
      int pair = 0;
      double before = 0;  // the end of what the rank did before: since when it waits
      for (const TimedAction& t : run.ranks[r]) {
        const Action& a = t.action;
        const double came = streams == Streams::kOne || a.kind == Action::kUpdate ? before : t.begin;
        before = t.end;
        if (IsCompute(a)) {
          const bool second = a.overlap != 0 && a.overlap == pair;
          const double first = second ? t.end - d.Of(a, p.schedule.micro_batches) : t.begin;
          const double last = a.overlap == 0 || second ? t.end : t.begin + d.Of(a, p.schedule.micro_batches);
          pair = a.overlap;
          Add(a, Step::kLaunch, 0, first, (first + last) / 2);
          Add(a, Step::kLaunch, 0, (first + last) / 2, last);
        } else if (a.kind == Action::kSend || a.kind == Action::kRecv) {
          const int stream = streams == Streams::kOne ? 0 : 1 + p.train.channel_of[a.edge];
          Add(a, Step::kCollective, static_cast<int16_t>(stream), came, t.end);
        } else if (a.kind == Action::kUpdate) {
          Add(a, Step::kCollective, 0, came, t.begin);
          Add(a, Step::kLaunch, 0, t.begin, t.end);
        }
      }
    }
  }

  StepProfile profile;

 private:
  void Add(const Action& a, Step::Kind kind, int16_t stream, double begin, double end) {
    code_.push_back({.kind = kind});
    profile.back().push_back({&code_.back(), a, stream, begin + clock_, end - begin});
  }

  std::deque<Step> code_;
  double clock_ = 0;
};

void ExpectDurations(const StageDurations& got, const StageDurations& want, const JobPipeline& p) {
  ASSERT_EQ(got.stages.size(), want.stages.size());
  for (size_t s = 0; s < got.stages.size(); ++s) {
    EXPECT_NEAR(got.stages[s].forward, want.stages[s].forward, kClose) << p.schedule.name << s;
    EXPECT_NEAR(got.stages[s].B(), want.stages[s].B(), kClose) << p.schedule.name << s;
    EXPECT_NEAR(got.stages[s].input_grad, want.stages[s].input_grad, kClose) << p.schedule.name << s;
    EXPECT_NEAR(got.stages[s].weight_grad, want.stages[s].weight_grad, kClose) << p.schedule.name << s;
  }
  EXPECT_THAT(got.edges, Pointwise(DoubleNear(kClose), want.edges)) << p.schedule.name;
}

TEST(PipelineProfile, GivesPlantedChunksBackAndTheSameStep) {
  for (const char* name : {"1f1b", "interleaved", "zb-h1", "zbv", "dualpipe"}) {
    const JobPipeline p = PipelineOf(name, 2, 6);
    const StageDurations planted = Planted(p);
    for (const Streams streams : {Streams::kOne, Streams::kEveryChannel}) {
      const Timeline run = Simulate(p.schedule, p.train, planted, streams).value();
      const Recording step(p, planted, run, streams);
      const std::vector<StageDurations::Stage> modelled(p.schedule.stages(),
                                                        {.forward = 9, .input_grad = 5, .weight_grad = 3});
      const absl::StatusOr<PipelineProfile> profile = ProfileOf(p, {&step.profile, 1}, modelled);
      ASSERT_TRUE(profile.ok()) << profile.status();
      ExpectDurations(profile->durations, planted, p);
      const StepComparison c = CompareStep(p, *profile, streams, run.makespan()).value();
      EXPECT_NEAR(c.Off(), 0, kClose) << name;
      EXPECT_NEAR(c.profiled_s, run.makespan(), kClose) << name;
      EXPECT_NEAR(c.IdleOff(), 0, kClose) << name;
      EXPECT_GT(c.idle[0], 0.01) << name;
    }
  }
}

TEST(PipelineProfile, SeesADoubledChunk) {
  const JobPipeline p = PipelineOf("1f1b", 3, 8);
  StageDurations planted = Planted(p);
  const std::vector<StageDurations::Stage> modelled = planted.stages;
  const double plain = Simulate(p.schedule, p.train, planted, Streams::kOne)->makespan();
  planted.stages[1].forward *= 2;
  const Timeline run = Simulate(p.schedule, p.train, planted, Streams::kOne).value();
  const Recording step(p, planted, run, Streams::kOne);
  const PipelineProfile profile = ProfileOf(p, {&step.profile, 1}, modelled).value();
  ExpectDurations(profile.durations, planted, p);
  EXPECT_NEAR(CompareStep(p, profile, Streams::kOne, plain)->Off(), run.makespan() / plain - 1, kClose);
  EXPECT_GT(run.makespan(), plain + 1);
}

// What happens once is in the step, not in the medians: the simulator is faster, and says so.
TEST(PipelineProfile, OneStallIsADifference) {
  constexpr double kStall = 2;
  const JobPipeline p = PipelineOf("1f1b", 2, 8);
  const StageDurations planted = Planted(p);
  Timeline run = Simulate(p.schedule, p.train, planted, Streams::kOne).value();
  const double plain = run.makespan();
  const Action first{.kind = Action::kF, .stage = 1, .micro_batch = 0};
  double at = 0;
  for (const TimedAction& t : run.ranks[1]) {
    if (ToString(t.action) == ToString(first)) at = t.begin;
  }
  for (std::vector<TimedAction>& rank : run.ranks) {
    for (TimedAction& t : rank) {
      if (t.begin > at) t.begin += kStall;
      if (t.end > at) t.end += kStall;
    }
  }
  const Recording step(p, planted, run, Streams::kOne);
  const PipelineProfile profile = ProfileOf(p, {&step.profile, 1}, planted.stages).value();
  EXPECT_NEAR(profile.durations.stages[1].forward, planted.stages[1].forward, kClose);
  const StepComparison c = CompareStep(p, profile, Streams::kOne, plain + kStall).value();
  EXPECT_NEAR(c.Off(), plain / (plain + kStall) - 1, kClose);
  EXPECT_NEAR(c.profiled_s, plain + kStall, kClose);
}

// A rank of one stage: a collective that computing waits for is in the chunk, one that runs on after it is not, nor is the
// wait between recomputing and the gradient's arrival.
TEST(PipelineProfile, WaitingIsNoPartOfAChunk) {
  JobPipeline p = PipelineOf("1f1b", 1, 1);
  std::deque<Step> code;
  StepProfile profile(1);
  const auto add = [&](Action::Kind kind, Step::Kind step, int16_t stream, double begin, double end) {
    code.push_back({.kind = step});
    const int micro_batch = kind == Action::kUpdate ? -1 : 0;
    profile[0].push_back({&code.back(), {.kind = kind, .micro_batch = micro_batch}, stream, begin, end - begin});
  };
  add(Action::kF, Step::kLaunch, 0, 0, 1);
  add(Action::kF, Step::kCollective, 1, 0.75, 1.5);
  add(Action::kF, Step::kLaunch, 0, 1.5, 1.75);
  add(Action::kF, Step::kLaunch, 0, 1.75 + 1e-5, 2);  // a gap of the timers'
  add(Action::kB, Step::kLaunch, 0, 2, 3);
  add(Action::kB, Step::kLaunch, 0, 5, 6);
  add(Action::kB, Step::kCollective, 2, 5.5, 9);
  add(Action::kUpdate, Step::kCollective, 2, 9, 9.5);
  add(Action::kUpdate, Step::kLaunch, 3, 9.5, 10);
  const PipelineProfile got = ProfileOf(p, {&profile, 1}, {{.forward = 1, .input_grad = 1, .weight_grad = 1}}).value();
  EXPECT_NEAR(got.durations.stages[0].forward, 2 - 1e-5, kClose);
  EXPECT_NEAR(got.durations.stages[0].backward, 2, kClose);
  EXPECT_NEAR(got.durations.stages[0].update, 1, kClose);
  EXPECT_NEAR(IdleShares(got.steps[0])[0], 0.5, kClose);  // 2 + 2 + 1 of 10
  for (const TimedAction& t : got.steps[0].ranks[0]) {
    if (t.action.kind != Action::kB) continue;
    EXPECT_NEAR(t.begin, 4, kClose);
    EXPECT_NEAR(t.end, 6, kClose);
  }
}

TEST(PipelineProfile, SaysWhatIsMissing) {
  const JobPipeline p = PipelineOf("1f1b", 2, 4);
  const StageDurations planted = Planted(p);
  Recording step(p, planted, Simulate(p.schedule, p.train, planted, Streams::kOne).value(), Streams::kOne);
  std::erase_if(step.profile[1], [](const Executor::TimedStep& t) {
    return t.action.kind == Action::kRecv && t.action.micro_batch == 2;
  });
  EXPECT_THAT(std::string(ProfileOf(p, {&step.profile, 1}, planted.stages).status().message()),
              HasSubstr("recv 1.2 of pipeline rank 1 has no measured time"));
}

TEST(PipelineProfile, StreamsOfThePlan) {
  Program program{.name = "train"};
  for (int16_t edge = 0; edge < 2; ++edge) {
    program.segments.push_back(
        {.kind = Action::kSend, .edge = edge, .steps = {{.kind = Step::kCollective, .comm = edge}}});
    program.actions.push_back({.kind = Action::kSend, .micro_batch = 0, .edge = edge});
  }
  EXPECT_EQ(StreamsOf(program), Streams::kOne);
  program.issues = {{.action = 0, .step = 0, .stream = 0}, {.action = 1, .step = 0, .stream = 0}};
  EXPECT_EQ(StreamsOf(program), Streams::kOne);
  program.issues = {{.action = 0, .step = 0, .stream = 1}, {.action = 1, .step = 0, .stream = 1}};
  EXPECT_EQ(StreamsOf(program), Streams::kCompute);
  program.issues[1].stream = 2;
  EXPECT_EQ(StreamsOf(program), Streams::kEveryChannel);
}

// The tool, on thread ranks: its numbers agree with each other, and `plan --schedule` reads the chunks.
TEST(BenchStep, SimulatesAPipelineWithItsMeasuredChunks) {
  const SmallRun run;
  run.Load();
  const std::string config = run.dir().path("run.toml"), csv = run.dir().path("chunks.csv"),
                    html = run.dir().path("step.html");
  BenchOptions options{.config = config,
                       .set = {"model.layers=4", "batch.accumulate=4", "parallel.pp=2", "parallel.schedule=\"zb-h1\""},
                       .steps = 3,
                       .timeline = html,
                       .simulate = true,
                       .durations_out = csv};
  testing::internal::CaptureStdout();
  const absl::Status status = RunBenchStep(options);
  const std::string out = testing::internal::GetCapturedStdout();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(out, HasSubstr("edge 0->1 activation"));
  const size_t last = out.rfind('\n', out.size() - 2);
  const nlohmann::json line = nlohmann::json::parse(out.substr(last + 1));
  const double step = line["step_s"], simulated = line["simulated_s"];
  EXPECT_GT(simulated, 0);
  EXPECT_NEAR(line["simulated_off"].get<double>(), simulated / step - 1, 1e-2 * simulated / step);
  ASSERT_EQ(line["pipeline_idle"].size(), 2u);
  ASSERT_EQ(line["simulated_idle"].size(), 2u);
  double off = 0;
  for (int r = 0; r < 2; ++r) {
    const double measured = line["pipeline_idle"][r], idle = line["simulated_idle"][r];
    EXPECT_GE(measured, 0);
    EXPECT_LT(measured, 1);
    off = std::max(off, std::abs(measured - idle));
  }
  EXPECT_NEAR(line["idle_off"].get<double>(), off, 2e-4);
  EXPECT_THAT(*ReadText(Env::Posix(), html), HasSubstr("measured"));

  const std::string text = *ReadText(Env::Posix(), csv);
  EXPECT_THAT(text, HasSubstr("# transfers: --link-us 0 --link-gbps "));
  const auto stages = ParseDurations(text);
  ASSERT_TRUE(stages.ok()) << stages.status();
  ASSERT_EQ(stages->size(), 2u);
  for (const StageDurations::Stage& s : *stages) {
    for (const double seconds : {s.forward, s.input_grad, s.weight_grad, s.update}) EXPECT_GT(seconds, 0);
    EXPECT_LT(s.forward + s.input_grad + s.weight_grad, simulated);
  }
  testing::internal::CaptureStdout();
  const absl::Status planned =
      RunPlanSchedule({.config = config, .set = options.set, .schedule = "1f1b", .durations = csv});
  EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("stages as measured"));
  EXPECT_TRUE(planned.ok()) << planned;

  options.set.resize(2);
  EXPECT_EQ(RunBenchStep(options).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace strata
