#include "launch/job/rank_runner.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/job/init_parameters.h"
#include "optim/schedule.h"
#include "parallel/comm/device_world.h"

namespace strata {
namespace {

void Put(void* out, DType dtype, int64_t i, double v) {
  switch (dtype) {
    case DType::kF64: static_cast<double*>(out)[i] = v; break;
    case DType::kF32: static_cast<float*>(out)[i] = static_cast<float>(v); break;
    default: static_cast<int32_t*>(out)[i] = static_cast<int32_t>(v); break;
  }
}

double Get(const TensorRef& t, int64_t i) {
  switch (t.dtype) {
    case DType::kF64: return t.as<const double>()[i];
    case DType::kF32: return t.as<const float>()[i];
    default: return static_cast<float>(t.as<const BF16>()[i]);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankRunner>> RankRunner::Create(const Job& job, const std::shared_ptr<const Plan>& plan,
                                                               World& world, Device& device, ThreadPool* pool,
                                                               Executor::Freed freed) {
  std::unique_ptr<RankRunner> r(new RankRunner(job, pool));
  if (RankLedger* ledger = world.ledger()) r->activity_ = &ledger->activity(world.rank());
  World* plan_world = &world;  // of collectives on the device's memory
  if (!device.host_addressable() && world.size() > 1) {
    const CommConfig& c = job.config.parallel.comm;
    ASSIGN_OR_RETURN(
        DeviceWorld made,
        MakeDeviceWorld(world, device, c.transport, OptionsOf(c, std::chrono::seconds(job.config.guard.hang_timeout))));
    r->device_world_ = std::move(made.world);
    r->note_ = NoteOnUnusedKeys(c, made.taken);
    plan_world = r->device_world_.get();
  }
  Executor::Deps deps{.device = device, .world = *plan_world, .pool = pool, .freed = freed};
  if (world.rank() == 0) {
    deps.on_slow_start = [] {
      std::fputs("note: preparing kernels, which are timed where no start on such a device has chosen yet\n", stderr);
    };
  }
  absl::StatusOr<std::unique_ptr<Executor>> executor = Executor::Create(plan, std::move(deps));
  if (absl::IsResourceExhausted(executor.status())) {
    return absl::ResourceExhaustedError(absl::StrFormat("%s\n%s", executor.status().message(), Print(*plan)));
  }
  ASSIGN_OR_RETURN(r->executor_, std::move(executor));
  ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, world.rank()));
  r->rows_ = job.batch_rows;
  if (const AxisSet dp = mesh.Find("dp"); dp != 0) {
    const std::vector<int> group = mesh.Group(dp);
    r->rows_ /= static_cast<int64_t>(group.size());
    r->row_origin_ = r->rows_ * (std::find(group.begin(), group.end(), mesh.rank()) - group.begin());
    ASSIGN_OR_RETURN(r->data_, world.Connect({"loader", group}));
  }
  const Plan& p = r->executor_->plan();
  if (const Program* program = p.FindProgram("train"))
    r->train_ = r->MakeBuffers(*program, job.config.batch.accumulate);
  if (const Program* program = p.FindProgram("eval"))
    r->eval_ = r->MakeBuffers(*program, job.pipeline.eval_micro_batches);
  if (const Program* program = p.FindProgram("logits")) r->logits_ = r->MakeBuffers(*program, 1);
  r->row_tokens_.resize(job.config.model.seq);
  r->row_targets_.resize(job.config.model.seq);
  r->row_starts_.resize(job.config.model.seq);
  r->row_weights_.resize(job.config.model.seq);
  return r;
}

std::vector<RankRunner::Buffer> RankRunner::MakeBuffers(const Program& program, int64_t micro_batches) const {
  std::vector<Buffer> buffers;
  for (const Port& port : program.inputs) {
    const TensorRef& view = port.operand.view;
    Buffer b{port.name, &port, {}};
    b.bytes.assign(static_cast<size_t>(micro_batches), std::vector<std::byte>(view.bytes()));
    if (port.name == "positions") {
      for (auto& bytes : b.bytes) {
        for (int64_t i = 0; i < view.shape[0]; ++i)
          Put(bytes.data(), view.dtype, i, static_cast<double>(view.origin[0] + i));
      }
    }
    buffers.push_back(std::move(b));
  }
  return buffers;
}

absl::Status RankRunner::InitParameters(uint64_t seed) {
  std::vector<std::byte> host;
  const LiveWeights live = LiveWeightsOf(executor_->plan());
  for (const PlannedState& s : executor_->plan().states) {
    if (!HasInitialValue(s)) continue;
    host.resize(static_cast<size_t>(s.box.shape.elements() * SizeOf(s.spec.dtype)));
    InitState(s, live, job_.config.model, seed, host, pool_);
    const int64_t size = SizeOf(s.spec.dtype);
    RETURN_IF_ERROR(executor_->WriteState(
        s, std::span(host).subspan(static_cast<size_t>(s.first * size), static_cast<size_t>(s.count * size))));
  }
  return absl::OkStatus();
}

int64_t RankRunner::rows_per_step() const { return job_.batch_rows * job_.config.batch.accumulate; }

std::vector<int64_t> RankRunner::RowOffsets() const {
  std::vector<int64_t> offsets;
  for (int64_t m = 0; m < job_.config.batch.accumulate; ++m) {
    for (int64_t i = 0; i < rows_; ++i) offsets.push_back(m * job_.batch_rows + row_origin_ + i);
  }
  return offsets;
}

absl::StatusOr<RankRunner::Filled> RankRunner::FillRows(std::vector<Buffer>& buffers, int64_t micro_batches,
                                                        int64_t first_row, int64_t end_row, const RowSource& source) {
  using Clock = std::chrono::steady_clock;
  SayReading(first_row);
  Filled filled;
  for (int64_t m = 0; m < micro_batches; ++m) {
    for (int64_t i = 0; i < rows_; ++i) {
      const int64_t row = first_row + m * job_.batch_rows + row_origin_ + i;
      const bool real = row < end_row;
      const auto begun = Clock::now();
      RETURN_IF_ERROR(source.Row(real ? row : first_row, {row_tokens_, row_targets_, row_weights_, row_starts_}));
      filled.wait_s += std::chrono::duration<double>(Clock::now() - begun).count();
      if (!real) std::fill(row_weights_.begin(), row_weights_.end(), 0.0f);
      for (float w : row_weights_) filled.tokens += w != 0;
      const auto put = [&](std::string_view name, const auto& values) {
        for (Buffer& b : buffers) {
          if (b.name != name) continue;
          const TensorRef& view = b.port->operand.view;
          const bool by_token = view.shape.rank == 2;
          const int64_t columns = by_token ? view.shape[1] : 1, from = by_token ? view.origin[1] : 0;
          std::byte* const bytes = b.bytes[static_cast<size_t>(m)].data();
          for (int64_t j = 0; j < columns; ++j) {
            Put(bytes, view.dtype, i * columns + j, static_cast<double>(values[from + j]));
          }
        }
      };
      put("samples", std::array{row % (int64_t{1} << 31)});
      put("tokens", row_tokens_);
      put("targets", row_targets_);
      put("weights", row_weights_);
      put("document_starts", row_starts_);
    }
  }
  return filled;
}

void RankRunner::SayReading(int64_t first_row) {
  if (activity_ == nullptr) return;
  char text[64];
  absl::SNPrintF(text, sizeof(text), "reading data from sample %d on", first_row);
  activity_->Set(text);
}

absl::StatusOr<int64_t> RankRunner::SumOverData(int64_t local) {
  sum_ = local;
  if (data_ == nullptr) return sum_;
  const Collective call{.kind = Collective::kAllReduce, .dtype = DType::kI64, .count = 1, .in = &sum_, .out = &sum_};
  RETURN_IF_ERROR(data_->Issue({&call, 1}, Stream{}));
  return sum_;
}

absl::Status RankRunner::RunFed(std::string_view program, std::vector<Buffer>& buffers, const StepScalars& scalars) {
  for (Buffer& b : buffers) {
    if (b.name != "loss_scale") continue;
    for (auto& bytes : b.bytes) Put(bytes.data(), b.port->operand.view.dtype, 0, scalars.loss_scale);
  }
  const auto feed = [&](const Port& port, int m) -> absl::StatusOr<std::span<const std::byte>> {
    for (const Buffer& b : buffers) {
      if (b.port == &port) return std::span<const std::byte>(b.bytes[m]);
    }
    return absl::InternalError("no data for this input");
  };
  if (profile_ == nullptr) return executor_->Run(program, scalars, feed);
  ASSIGN_OR_RETURN(*profile_, executor_->Profile(program, scalars, feed));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Executor::TimedStep>> RankRunner::ProfileStep(int64_t step, int64_t first_row,
                                                                         const RowSource& source) {
  std::vector<Executor::TimedStep> steps;
  profile_ = &steps;
  const absl::StatusOr<StepReport> report = TrainStep(step, first_row, source);
  profile_ = nullptr;
  RETURN_IF_ERROR(report.status());
  return steps;
}

absl::StatusOr<double> RankRunner::Scalar(std::string_view program, std::string_view output) {
  ASSIGN_OR_RETURN(const TensorRef t, executor_->ReadOutput(program, output, output_));
  return Get(t, 0);
}

absl::StatusOr<StepReport> RankRunner::TrainStep(int64_t step, int64_t first_row, const RowSource& source,
                                                 double max_loss) {
  StepReport report;
  const absl::StatusOr<Filled> filled =
      FillRows(train_, job_.config.batch.accumulate, first_row, first_row + rows_per_step(), source);
  if (!filled.ok()) return Annotate(filled.status(), absl::StrFormat("data of step %d", step));
  report.data_wait_s = filled->wait_s;
  if (activity_ != nullptr) activity_->Set("summing the tokens of the batch");
  ASSIGN_OR_RETURN(report.tokens, SumOverData(filled->tokens));
  if (report.tokens == 0) {
    return absl::InvalidArgumentError(absl::StrFormat("step %d: no token of samples %d to %d has weight", step,
                                                      first_row, first_row + rows_per_step() - 1));
  }
  report.lr = LearningRate(job_.config.optim, job_.config.schedule, job_.config.batch.tokens, step);
  RETURN_IF_ERROR(RunFed("train", train_,
                         {.seed = static_cast<uint64_t>(job_.config.run.seed),
                          .step = static_cast<uint64_t>(step),
                          .loss_scale = 1.0 / static_cast<double>(report.tokens),
                          .lr = report.lr,
                          .loss_limit = max_loss * static_cast<double>(report.tokens)}));
  ASSIGN_OR_RETURN(const double nats, Scalar("train", "loss"));
  ASSIGN_OR_RETURN(report.grad_norm, Scalar("train", "grad_norm"));
  ASSIGN_OR_RETURN(const double guarded_norm, Scalar("train", "guarded_norm"));
  report.skipped = !std::isfinite(guarded_norm);
  report.loss = nats / static_cast<double>(report.tokens);
  return report;
}

absl::StatusOr<RankRunner::LossSum> RankRunner::Evaluate(int64_t num_rows, const RowSource& source) {
  LossSum total;
  const int64_t micro_batches = job_.pipeline.eval_micro_batches;
  for (int64_t row = 0; row < num_rows; row += micro_batches * job_.batch_rows) {
    ASSIGN_OR_RETURN(const Filled filled, FillRows(eval_, micro_batches, row, num_rows, source));
    ASSIGN_OR_RETURN(const int64_t tokens, SumOverData(filled.tokens));
    RETURN_IF_ERROR(RunFed("eval", eval_, {.seed = static_cast<uint64_t>(job_.config.run.seed)}));
    ASSIGN_OR_RETURN(const double nats, Scalar("eval", "eval_loss"));
    total.tokens += tokens;
    total.nats += nats;
  }
  return total;
}

absl::StatusOr<std::vector<double>> RankRunner::NextLogits(std::span<const int32_t> tokens) {
  for (Buffer& b : logits_) {
    if (b.name != "tokens") continue;
    for (int64_t i = 0; i < job_.config.model.seq; ++i) {
      Put(b.bytes[0].data(), DType::kI32, i, i < static_cast<int64_t>(tokens.size()) ? tokens[i] : 0);
    }
  }
  RETURN_IF_ERROR(RunFed("logits", logits_, {}));
  ASSIGN_OR_RETURN(const TensorRef all, executor_->ReadOutput("logits", "logits", output_));
  const int64_t at = (static_cast<int64_t>(tokens.size()) - 1) * all.shape[2];
  std::vector<double> logits(job_.config.model.vocab);  // all.shape[2] may be padded
  for (int64_t v = 0; v < job_.config.model.vocab; ++v) logits[v] = Get(all, at + v);
  return logits;
}

absl::Status RankRunner::Close() {
  absl::Status s = executor_->Close();
  if (data_ != nullptr) s.Update(data_->Close());
  return s;
}

}  // namespace strata
