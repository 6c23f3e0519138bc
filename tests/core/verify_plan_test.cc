// VerifyPlans finds planted hazards: every test spoils a good plan in one way and expects the fault to be named.

#include <gtest/gtest.h>

#include "core/graph/op.h"
#include "core/plan/plan.h"
#include "launch/job/compile.h"
#include "tests/testing/small_job.h"

namespace strata {
namespace {

std::vector<Plan> GoodPlans(int64_t dp, int64_t tp) {
  const KernelTable kernels = CpuKernels();
  absl::StatusOr<Job> job = CompileTraining(testing::SmallJob(dp, tp, 2), kernels);
  EXPECT_TRUE(job.ok()) << job.status();
  absl::StatusOr<std::vector<Plan>> plans = PlanRanks(*job, kernels);
  EXPECT_TRUE(plans.ok()) << plans.status();
  return *std::move(plans);
}

Segment& SegmentOf(Plan& plan, Action::Kind kind) {
  for (Segment& s : plan.programs[0].segments) {
    if (s.kind == kind) return s;
  }
  ADD_FAILURE() << "no such segment";
  return plan.programs[0].segments[0];
}

std::string Fault(const std::vector<Plan>& plans) { return std::string(VerifyPlans(plans).message()); }

// The plan of one rank keeps its kernels alive through `kernels` of GoodPlans only by pointer; verification does not call them.
TEST(VerifyPlans, AcceptsGoodPlans) {
  EXPECT_EQ(Fault(GoodPlans(1, 1)), "");
  EXPECT_EQ(Fault(GoodPlans(2, 2)), "");
}

TEST(VerifyPlans, FindsAnOutputOverItsInput) {
  std::vector<Plan> plans = GoodPlans(1, 1);
  Segment& f = SegmentOf(plans[0], Action::kF);
  const auto step = std::find_if(f.steps.begin(), f.steps.end(),
                                 [](const Step& s) { return s.in.size() == 2 && s.op->name() == "linear"; });
  step->out[0].ref = step->in[0].ref;
  EXPECT_NE(Fault(plans).find("overlaps input"), std::string::npos) << Fault(plans);
}

TEST(VerifyPlans, FindsAValueThatIsClobberedWhileLive) {
  std::vector<Plan> plans = GoodPlans(1, 1);
  Segment& f = SegmentOf(plans[0], Action::kF);
  // A later output moved onto the tokens, which the backward still reads.
  const Ref tokens = f.steps[0].in[0].ref;
  for (size_t i = 5; i < f.steps.size(); ++i) {
    if (f.steps[i].out[0].ref.region == plans[0].programs[0].inputs[0].operand.ref.region &&
        f.steps[i].out.size() == 1) {
      f.steps[i].out[0].ref = tokens;
      break;
    }
  }
  const std::string fault = Fault(plans);
  EXPECT_FALSE(fault.empty());
}

TEST(VerifyPlans, FindsAReadOfWhatIsNotWritten) {
  std::vector<Plan> plans = GoodPlans(1, 1);
  Segment& f = SegmentOf(plans[0], Action::kF);
  f.steps.erase(f.steps.begin() + 3);
  f.frees.clear();
  const std::string fault = Fault(plans);
  EXPECT_TRUE(fault.find("not written") != std::string::npos || fault.find("overwritten") != std::string::npos)
      << fault;
}

TEST(VerifyPlans, FindsAReadAfterFree) {
  std::vector<Plan> plans = GoodPlans(1, 1);
  Segment& f = SegmentOf(plans[0], Action::kF);
  ASSERT_FALSE(f.steps[0].out.empty());
  f.frees.insert(f.frees.begin(), {0, f.steps[0].out[0].ref, f.steps[0].out[0].view.bytes()});
  EXPECT_NE(Fault(plans).find("freed"), std::string::npos) << Fault(plans);
}

TEST(VerifyPlans, FindsAnOperandOutsideItsRegion) {
  std::vector<Plan> plans = GoodPlans(1, 1);
  Step& s = SegmentOf(plans[0], Action::kF).steps[2];
  s.out[0].ref.offset = plans[0].regions[s.out[0].ref.region].bytes;
  EXPECT_NE(Fault(plans).find("outside"), std::string::npos) << Fault(plans);
}

TEST(VerifyPlans, FindsStreamsThatDoNotWaitAndAcceptsThoseThatDo) {
  std::vector<Plan> plans = GoodPlans(1, 1);
  Plan& plan = plans[0];
  plan.streams.push_back({"second", Priority::kNormal});
  plan.events = 2;
  Segment& f = SegmentOf(plan, Action::kF);
  f.steps[4].stream = 1;
  EXPECT_NE(Fault(plans).find("not waited for"), std::string::npos) << Fault(plans);
  // record on stream 0, wait on 1, the step, record on 1, wait on 0: ordered again.
  const auto sync = [](Step::Kind kind, int16_t stream, int32_t event) {
    Step s;
    s.kind = kind;
    s.stream = stream;
    s.event = event;
    return s;
  };
  f.steps.insert(f.steps.begin() + 4, {sync(Step::kRecord, 0, 0), sync(Step::kWait, 1, 0)});
  f.steps.insert(f.steps.begin() + 7, {sync(Step::kRecord, 1, 1), sync(Step::kWait, 0, 1)});
  for (Segment::Free& free : f.frees) free.after_step += free.after_step >= 4 ? 4 : 0;
  EXPECT_EQ(Fault(plans), "");
}

TEST(VerifyPlans, FindsRanksThatIssueDifferentCollectives) {
  std::vector<Plan> plans = GoodPlans(2, 1);
  Segment& u = SegmentOf(plans[1], Action::kUpdate);
  const auto call =
      std::find_if(u.steps.begin(), u.steps.end(), [](const Step& s) { return s.kind == Step::kCollective; });
  ASSERT_NE(call, u.steps.end());
  call->call.count += 1;
  EXPECT_NE(Fault(plans).find("rank 1"), std::string::npos) << Fault(plans);
  u.steps.erase(call);
  u.frees.clear();
  EXPECT_NE(Fault(plans).find("communicator dp differs"), std::string::npos) << Fault(plans);
}

TEST(VerifyPlans, FindsASendThatNobodyReceives) {
  std::vector<Plan> plans = GoodPlans(2, 1);
  Segment& u = SegmentOf(plans[0], Action::kUpdate);
  auto call = std::find_if(u.steps.begin(), u.steps.end(), [](const Step& s) { return s.kind == Step::kCollective; });
  Step send = *call;
  send.call.kind = Collective::kSend;
  send.call.peer = 1;
  u.steps.push_back(send);
  EXPECT_NE(Fault(plans).find("issues send"), std::string::npos) << Fault(plans);
}

}  // namespace
}  // namespace strata
