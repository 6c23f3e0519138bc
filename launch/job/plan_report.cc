#include "launch/job/plan_report.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <thread>

#include "absl/strings/str_format.h"
#include "core/kernels/gemm.h"
#include "launch/job/job_memory.h"
#include "launch/job/memory_limit.h"
#include "models/model.h"

namespace strata {

namespace {

template <typename T>
double GemmRate(int64_t n) {
  const std::vector<T> a(n * n, T{1}), b(n * n, T{1});
  std::vector<T> c(n * n);
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  double flops = 0, seconds = 0;
  while (seconds < 0.05) {
    SerialGemm(n, n, n, 1, Matrix<const T>{a.data(), n}, Matrix<const T>{b.data(), n, Transpose::kYes}, 0,
               Matrix<T>{c.data(), n});
    flops += 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return flops / seconds;
}

// Bytes of a rank's states by what they are, and for each parameter of its part of the model.
std::string StatesText(const Plan& plan) {
  double parameters = 0, total = 0;
  for (const PlannedState& s : plan.states) {
    if (s.role == Role::kParam && s.name.compare(0, 7, "bucket.") != 0)
      parameters += static_cast<double>(s.box.shape.elements());
  }
  std::string text;
  for (const std::string name : {"parameters", "gradients", "master weights", "moments"}) {
    for (const Region& r : plan.regions) {
      if (r.name != name) continue;
      const double bytes = static_cast<double>(r.bytes) / parameters;
      absl::StrAppendFormat(&text, "%s%s %.2f", text.empty() ? "" : " + ", name, bytes);
      total += bytes;
    }
  }
  return absl::StrFormat("states of a rank, bytes a parameter: %s = %.2f\n", text, total);
}

// What a rank sends in one run of the program, by communicator and kind.
std::string TrafficText(const Plan& plan, const Program& program) {
  std::map<std::pair<std::string, std::string>, std::pair<int64_t, double>> sent;
  for (const Action& a : program.actions) {
    for (const Segment& segment : program.segments) {
      if (segment.kind != a.kind || segment.stage != a.stage) continue;
      for (const Step& step : segment.steps) {
        if (step.kind != Step::kCollective) continue;
        const CommSpec& comm = plan.comms[step.comm];
        auto& [calls, bytes] = sent[{comm.name, Name(step.call.kind)}];
        ++calls;
        bytes += step.calls * BytesSent(step.call, static_cast<int>(comm.ranks.size()));
      }
    }
  }
  std::string text;
  for (const auto& [call, count] : sent) {
    absl::StrAppendFormat(&text, "  %-12s %-16s %6d calls %14.0f bytes (%s)\n", call.first, call.second, count.first,
                          count.second, HumanBytes(count.second));
  }
  return text.empty() ? "" : absl::StrFormat("sent by a rank in a run of %s\n%s", program.name, text);
}

}  // namespace

double MeasureFlops(DType dtype, int threads) {
  constexpr int64_t kN = 384;
  const auto rate = [&] { return dtype == DType::kF64 ? GemmRate<double>(kN) : GemmRate<float>(kN); };
  std::vector<double> rates(threads);
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) workers.emplace_back([&, i] { rates[i] = rate(); });
  double sum = 0;
  for (int i = 0; i < threads; ++i) {
    workers[i].join();
    sum += rates[i];
  }
  return sum;
}

std::string PlanReport(const Job& job, const std::vector<Plan>& plans, double flops_per_s, PrintDetail detail) {
  const JobConfig& c = job.config;
  std::string mesh;
  for (const MeshAxis& a : job.axes) mesh += absl::StrFormat("%s%s=%d", mesh.empty() ? "" : " x ", a.name, a.size);
  const double params = static_cast<double>(c.model.num_parameters()), flops = FlopsPerToken(c.model);
  const bool rounded = c.precision.gradients == GradientFormat::kBf16;
  std::string text = absl::StrFormat("plan of %s: %d rank%s%s, %s%s\n", c.run.name, job.ranks,
                                     job.ranks == 1 ? "" : "s", mesh.empty() ? "" : " (" + mesh + ")",
                                     Name(c.precision.compute), rounded ? " (gradients of weights too)" : "");
  absl::StrAppendFormat(&text, "  parameters               %.0f (%.2f M)\n", params, params / 1e6);
  const bool causal = ModelOf(c.model.arch).attention == AttentionMask::kCausal;
  absl::StrAppendFormat(&text, "  FLOPs a token            %.3e (6 a matmul weight + %s attention)\n", flops,
                        causal ? "6 L E S of causal" : "12 L E S of full");
  absl::StrAppendFormat(&text, "  batch                    %d tokens: %d sequences of %d, in %d micro-batch%s\n",
                        c.batch.tokens, c.batch.tokens / c.model.seq, c.model.seq, c.batch.accumulate,
                        c.batch.accumulate == 1 ? "" : "es");
  if (c.parallel.sequence_parallel && c.parallel.tp > 1) {
    absl::StrAppendFormat(&text, "  sequence parallelism     on tp; backward %s\n",
                          c.parallel.keep_gathered ? "reuses what forward gathered" : "gathers again");
  }
  if (c.model.classes() > 0) {
    absl::StrAppendFormat(&text, "  vocabulary               %d, in tables of %d rows\n", c.model.vocab,
                          c.model.table_rows());
  }
  if (c.memory.recompute != Recompute::kNone) {
    absl::StrAppendFormat(&text, "  recompute                %s%s\n", ToString(job.recompute, c.model.layers),
                          c.memory.recompute == Recompute::kAuto ? ", to fit " + c.memory.limit : "");
  }
  text += PipelineReport(c, job.pipeline, detail);
  const auto fullest = std::max_element(
      plans.begin(), plans.end(), [](const Plan& a, const Plan& b) { return a.arena_bytes[0] < b.arena_bytes[0]; });
  if (!EqualArenas(plans)) absl::StrAppendFormat(&text, "rank %d, which holds most:\n", fullest - plans.begin());
  text += Print(*fullest, detail);
  text += StatesText(*fullest);
  if (const Program* train = fullest->FindProgram("train")) text += TrafficText(*fullest, *train);
  text += MemoryText(job, plans);
  if (flops_per_s > 0) {
    const double step_s = flops * static_cast<double>(c.batch.tokens) / flops_per_s;
    absl::StrAppendFormat(
        &text,
        "time: at least %.3f s a step, %.0f s for %d steps (matmul and attention FLOPs at the %.0f GFLOP/s "
        "just measured here)\n",
        step_s, step_s * static_cast<double>(c.schedule.steps), c.schedule.steps, flops_per_s / 1e9);
  }
  return text;
}

}  // namespace strata
