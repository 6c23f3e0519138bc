#pragma once
// One rank of a job: its executor, the feeding of its inputs, and its steps. Used by one thread.

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/exec/executor.h"
#include "launch/job/compile.h"
#include "launch/job/row_source.h"

namespace strata {

struct StepReport {
  double loss = 0;       // nats a token, over the global batch
  double grad_norm = 0;  // before clipping
  double lr = 0;
  int64_t tokens = 0;      // with weight, in the global batch
  double data_wait_s = 0;  // of this rank, for rows of `source`
  bool skipped = false;    // the update was not applied: loss or gradient norm not finite, or the loss above the limit
};

class RankRunner {
 public:
  // Collective over the world. `job` and `device` must outlive the runner.
  static absl::StatusOr<std::unique_ptr<RankRunner>> Create(const Job& job, const std::shared_ptr<const Plan>& plan,
                                                            World& world, Device& device, ThreadPool* pool,
                                                            Executor::Freed freed = Executor::kDefaultFreed);

  // Parameters (and master weights) by the model's init scheme: a function of (seed, name, global index), so the same on
  // every layout.
  absl::Status InitParameters(uint64_t seed);

  // Step `step` (from 1) on rows [first_row, first_row + rows a step) of `source`. Collective.
  // Where the loss (nats a token) is above max_loss or is not finite, nothing is updated, alike on all ranks.
  // Errors: InvalidArgument where no token of the batch has weight; of the source; those of Executor::Run.
  absl::StatusOr<StepReport> TrainStep(int64_t step, int64_t first_row, const RowSource& source,
                                       double max_loss = std::numeric_limits<double>::infinity());

  struct LossSum {
    double nats = 0;
    int64_t tokens = 0;
  };
  // The summed loss of rows [0, num_rows), in batches; rows beyond the end have no weight. Collective.
  absl::StatusOr<LossSum> Evaluate(int64_t num_rows, const RowSource& source);

  // Logits of the last of `tokens` (at most seq), f64. Program "logits" only.
  absl::StatusOr<std::vector<double>> NextLogits(std::span<const int32_t> tokens);

  // A training step, its plan steps timed one by one.
  absl::StatusOr<std::vector<Executor::TimedStep>> ProfileStep(int64_t step, int64_t first_row,
                                                               const RowSource& source);

  Executor& executor() { return *executor_; }
  const std::string& note() const { return note_; }  // on keys of the config that have no effect; may be empty
  int64_t rows_per_step() const;
  // The rows of a step that this rank asks its source for, in order, less the step's first row.
  std::vector<int64_t> RowOffsets() const;
  absl::Status Close();  // collective

 private:
  RankRunner(const Job& job, ThreadPool* pool) : job_(job), pool_(pool) {}
  struct Buffer {
    std::string name;
    const Port* port = nullptr;
    std::vector<std::vector<std::byte>> bytes;  // by micro-batch
  };
  std::vector<Buffer> MakeBuffers(const Program& program, int64_t micro_batches) const;
  struct Filled {
    int64_t tokens = 0;  // of this rank, with weight
    double wait_s = 0;   // for the source
  };
  // Fills the inputs that are rows, of all micro-batches. A rank whose stages read none counts their tokens.
  absl::StatusOr<Filled> FillRows(std::vector<Buffer>& buffers, int64_t micro_batches, int64_t first_row,
                                  int64_t end_row, const RowSource& source);
  absl::StatusOr<int64_t> SumOverData(int64_t local);
  void SayReading(int64_t first_row);
  absl::Status RunFed(std::string_view program, std::vector<Buffer>& buffers, const StepScalars& scalars);
  absl::StatusOr<double> Scalar(std::string_view program, std::string_view output);

  const Job& job_;
  ThreadPool* const pool_;
  std::string note_;
  std::unique_ptr<World> device_world_;  // of the plan's collectives where they are on a GPU's memory; else null
  Activity* activity_ = nullptr;         // where this rank says what it does; may be null
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Communicator> data_;  // the ranks that hold other rows; null where there are none
  std::vector<Buffer> train_, eval_, logits_;
  int64_t row_origin_ = 0, rows_ = 0;  // of a micro-batch, this rank's
  std::vector<int32_t> row_tokens_, row_targets_, row_starts_;
  std::vector<float> row_weights_;
  std::vector<std::byte> output_;
  std::vector<Executor::TimedStep>* profile_ = nullptr;  // while ProfileStep runs
  int64_t sum_ = 0;
};

}  // namespace strata
