#include "launch/convert/checkpoint_weights.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "checkpoint/box.h"
#include "checkpoint/catalog.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/plan/weight_states.h"
#include "launch/job/init_parameters.h"
#include "launch/job/run_alone.h"

namespace strata {
namespace {

constexpr int64_t kRows = 2, kMaxTokens = 64;  // of the loss

class FixedRows final : public RowSource {
 public:
  explicit FixedRows(int64_t vocab) : vocab_(static_cast<uint64_t>(vocab)) {}
  absl::Status Row(int64_t index, const RowSpans& row) const override {
    const auto token = [&](size_t i) {
      return static_cast<int32_t>(Philox(0, static_cast<uint64_t>(index), i)[0] % vocab_);
    };
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      row.tokens[i] = token(i);
      row.targets[i] = token(i + 1);
      row.weights[i] = 1;
      row.document_starts[i] = 0;
    }
    return absl::OkStatus();
  }

 private:
  const uint64_t vocab_;
};

}  // namespace

absl::StatusOr<CheckpointWeights> CheckpointWeights::Open(Env& env, const std::string& path) {
  std::string dir = path;
  if (!env.Exists(path + "/" + kManifestName)) {
    const std::string below = path + "/checkpoints";
    ASSIGN_OR_RETURN(const NewestValid newest, FindNewestValid(env, env.Exists(below) ? below : path));
    dir = newest.path;
  }
  ASSIGN_OR_RETURN(CheckpointReader reader, CheckpointReader::Open(env, dir));
  return CheckpointWeights(dir, std::move(reader));
}

std::string CheckpointWeights::RunFolder() const {
  return std::filesystem::absolute(path_ + "/.").lexically_normal().parent_path().parent_path().parent_path().string();
}

const TensorRecord* CheckpointWeights::Find(std::string_view tensor) const {
  const std::vector<TensorRecord>& all = reader_.tensors();
  const auto it = std::find_if(all.begin(), all.end(), [&](const TensorRecord& t) { return t.name == tensor; });
  return it == all.end() ? nullptr : &*it;
}

absl::Status CheckpointWeights::Read(const std::string& parameter, StoredType type, std::span<std::byte> out) {
  const TensorRecord* record = Find(parameter);
  if (record == nullptr) return absl::NotFoundError(absl::StrFormat("%s has no tensor %s", path_, parameter));
  const TensorRecord* master = Find(parameter + ".master");
  if (master != nullptr && SizeOf(type) <= SizeOf(record->dtype)) master = nullptr;
  const TensorRecord* const low = master != nullptr && master->dtype == DType::kLow16 ? master : nullptr;
  if (master != nullptr && low == nullptr) record = master;
  const StoredType stored = StoredTypeOf(record->dtype);
  if (!IsFloating(stored) || record->global.elements() * SizeOf(type) != std::ssize(out)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s is %s %s", path_, record->name, Name(stored), ToString(record->global)));
  }
  const auto read = [&](const TensorRecord& t) -> absl::StatusOr<std::vector<std::byte>> {
    std::vector<std::byte> bytes(static_cast<size_t>(t.global.elements() * SizeOf(t.dtype)));
    RETURN_IF_ERROR(reader_.Read({t.name, t.dtype, t.global, OriginOf(t.global), t.global}, bytes));
    return bytes;
  };
  ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, read(*record));
  if (low == nullptr) {
    ConvertFloats(stored, bytes, type, out);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::vector<std::byte> lower, read(*low));
  std::vector<float> whole(bytes.size() / sizeof(BF16));
  for (size_t i = 0; i < whole.size(); ++i) {
    whole[i] = JoinHalvesAt(&bytes[i * sizeof(BF16)], &lower[i * sizeof(uint16_t)]);
  }
  ConvertFloats(StoredType::kF32, std::as_bytes(std::span(whole)), type, out);
  return absl::OkStatus();
}

absl::StatusOr<double> LossOnFixedTokens(
    const ModelConfig& model,
    absl::FunctionRef<absl::Status(const std::string& parameter, StoredType type, std::span<std::byte> out)> read) {
  JobConfig config;
  config.model = model;
  config.model.seq = std::min(model.seq, kMaxTokens);
  if (!model.traits().rope) config.model.positions = model.position_rows();
  config.batch.micro = kRows;
  config.run.device = DeviceKind::kCpu;
  ASSIGN_OR_RETURN(const BackEnd back_end, BackEndOf(config));
  ASSIGN_OR_RETURN(const Job job, CompileEvaluation(config, back_end.kernels));
  RankRunner::LossSum sum;
  RETURN_IF_ERROR(RunAlone(back_end, job, [&](const Plan& plan, RankRunner& runner) -> absl::Status {
    for (const PlannedState& s : plan.states) {
      if (!HasInitialValue(s)) continue;
      std::vector<std::byte> bytes(static_cast<size_t>(s.spec.shape.elements() * SizeOf(s.spec.dtype)));
      RETURN_IF_ERROR(read(s.name, StoredTypeOf(s.spec.dtype), bytes));
      RETURN_IF_ERROR(runner.executor().WriteState(s, bytes));
    }
    ASSIGN_OR_RETURN(sum, runner.Evaluate(kRows, FixedRows(model.vocab)));
    return absl::OkStatus();
  }));
  return sum.nats / static_cast<double>(sum.tokens);
}

}  // namespace strata
