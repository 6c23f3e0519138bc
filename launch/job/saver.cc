#include "launch/job/saver.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"
#include "checkpoint/pieces.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "core/plan/memory.h"
#include "launch/config/print_config.h"
#include "launch/job/checkpoint_io.h"
#include "launch/job/gather.h"

namespace strata {
namespace {

bool IsAsync(const JobConfig& config) { return config.checkpoint.async && config.checkpoint.every > 0; }

int64_t BytesOf(const PlannedState& s) { return s.count * SizeOf(s.spec.dtype); }

// Of a copy of the states, each at an aligned place.
int64_t CopyBytes(std::span<const PlannedState> states) {
  int64_t bytes = 0;
  for (const PlannedState& s : states) bytes += AlignUp(BytesOf(s));
  return bytes;
}

CheckpointMeta MetaOf(const Job& job, int64_t next_sample) {
  return {.mesh = MeshText(job),
          .next_sample = next_sample,
          .seed = static_cast<uint64_t>(job.config.run.seed),
          .config = PrintConfig(job.config, {})};
}

absl::StatusOr<std::string> CommitRecords(Env& env, const std::string& root, int64_t step, const std::string& folder,
                                          const std::vector<std::string>& texts, const CheckpointMeta& meta,
                                          int64_t keep) {
  std::vector<ShardRecord> records;
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(records.emplace_back(), ParseShardRecord(text));
  }
  ASSIGN_OR_RETURN(const Committed done,
                   CommitCheckpoint(env, root, step, folder, records, meta, static_cast<int>(keep)));
  if (!done.cleanup.ok()) {  // the checkpoint is whole; what could not be removed is tried again at the next save
    std::fprintf(stderr, "warning: after saving %s: %s\n", done.path.c_str(),
                 std::string(done.cleanup.message()).c_str());
  }
  return done.path;
}

}  // namespace

std::vector<int64_t> SaveBufferBytes(const Job& job, std::span<const Plan> plans) {
  std::vector<int64_t> bytes(plans.size());
  if (!IsAsync(job.config)) return bytes;
  const std::vector<std::vector<PlannedState>> states = StatesToSave(plans);
  for (size_t r = 0; r < plans.size(); ++r) bytes[r] = kSaveBuffers * CopyBytes(states[r]);
  return bytes;
}

Saver::Saver(const Deps& deps)
    : deps_(deps),
      root_(deps.job.config.run.out + "/checkpoints"),
      states_(std::move(StatesToSave(deps.plans)[deps.rank])),
      bytes_(CopyBytes(states_)),
      worker_(absl::StrFormat("saver.%d", deps.rank)) {}

absl::StatusOr<std::unique_ptr<Saver>> Saver::Create(const Deps& deps) {
  std::unique_ptr<Saver> saver(new Saver(deps));
  if (!IsAsync(deps.job.config)) return saver;
  for (std::byte*& buffer : saver->buffers_) {
    ASSIGN_OR_RETURN(buffer, deps.device.Reserve(Tier::kHost, saver->bytes_));
  }
  return saver;
}

absl::Status Saver::CopyStates(std::byte* to) {
  for (const PlannedState& s : states_) {
    RETURN_IF_ERROR(deps_.executor.ReadState(s, {to, static_cast<size_t>(BytesOf(s))}));
    to += AlignUp(BytesOf(s));
  }
  return absl::OkStatus();
}

std::vector<SavedBox> Saver::BoxesIn(const std::byte* copy) const {
  std::vector<SavedBox> boxes;
  for (const PlannedState& s : states_) {
    const std::byte* data = copy != nullptr ? copy : deps_.executor.StateBytes(s).data();
    for (Piece& piece : PiecesOf(s)) boxes.push_back({std::move(piece.box), data + piece.byte_offset});
    if (copy != nullptr) copy += AlignUp(BytesOf(s));
  }
  return boxes;
}

absl::StatusOr<bool> Saver::Start(int64_t step, int64_t next_sample) {
  STRATA_CHECK(has_buffers());
  if (saves_.size() == kSaveBuffers) return false;
  const int buffer = saves_.empty() ? 0 : 1 - saves_.front().buffer;
  const Clock::time_point begun = Clock::now();
  RETURN_IF_ERROR(CopyStates(buffers_[buffer]));
  Save save{.report = {.step = step}, .next_sample = next_sample, .boxes = BoxesIn(buffers_[buffer]), .buffer = buffer};
  save.copied = Clock::now();
  save.report.stall_s = std::chrono::duration<double>(save.copied - begun).count();
  Push(std::move(save));
  return true;
}

void Saver::Push(Save save) {
  saves_.push_back(std::move(save));
  if (saves_.size() == 1) Open();
}

void Saver::Open() {
  phase_ = Phase::kOpen;
  if (deps_.rank != 0) return;
  worker_.Run([this, step = saves_.front().report.step]() -> absl::Status {
    ASSIGN_OR_RETURN(folder_, BeginSave(deps_.env, root_, step));
    return absl::OkStatus();
  });
}

void Saver::Write() {
  phase_ = Phase::kWrite;
  worker_.Run([this, &boxes = saves_.front().boxes]() -> absl::Status {
    ASSIGN_OR_RETURN(record_, WriteShard(deps_.env, folder_, deps_.rank, boxes));
    return absl::OkStatus();
  });
}

void Saver::Commit(const std::vector<std::string>& records) {
  phase_ = Phase::kCommit;
  if (deps_.rank != 0) return;
  worker_.Run([this, records, step = saves_.front().report.step,
               meta = MetaOf(deps_.job, saves_.front().next_sample)]() -> absl::Status {
    ASSIGN_OR_RETURN(path_,
                     CommitRecords(deps_.env, root_, step, folder_, records, meta, deps_.job.config.checkpoint.keep));
    return absl::OkStatus();
  });
}

int64_t Saver::Progress() {
  if (saves_.empty()) return kReady;
  if (!worker_.done()) return kBusy;
  return worker_.Wait().ok() ? kReady : kFailed;
}

absl::StatusOr<std::optional<SaveReport>> Saver::Advance(int64_t progress) {
  if (saves_.empty() || progress == kBusy) return std::nullopt;
  RETURN_IF_ERROR(AgreeOn(deps_.control, worker_.done() ? worker_.Wait() : absl::OkStatus()));
  switch (phase_) {
    case Phase::kOpen: {
      ASSIGN_OR_RETURN(folder_, BroadcastText(deps_.control, folder_));
      Write();
      return std::nullopt;
    }
    case Phase::kWrite: {
      ASSIGN_OR_RETURN(const std::vector<std::string> records, AllGatherText(deps_.control, ToJson(record_)));
      Commit(records);
      return std::nullopt;
    }
    case Phase::kCommit: break;
  }
  Save& save = saves_.front();
  ASSIGN_OR_RETURN(save.report.path, BroadcastText(deps_.control, path_));
  save.report.save_s = std::chrono::duration<double>(Clock::now() - save.copied).count();
  SaveReport report = std::move(save.report);
  saves_.pop_front();
  if (!saves_.empty()) Open();
  return report;
}

absl::StatusOr<std::vector<SaveReport>> Saver::Finish() {
  std::vector<SaveReport> reports;
  while (!saves_.empty()) {
    worker_.Wait().IgnoreError();  // Advance() tells all ranks
    ASSIGN_OR_RETURN(std::optional<SaveReport> report, Advance(kReady));
    if (report) reports.push_back(*std::move(report));
  }
  return reports;
}

absl::StatusOr<std::vector<SaveReport>> Saver::SaveNow(int64_t step, int64_t next_sample) {
  ASSIGN_OR_RETURN(std::vector<SaveReport> reports, Finish());
  const Clock::time_point begun = Clock::now();
  Save save{.report = {.step = step}, .next_sample = next_sample};
  std::byte* copy = nullptr;
  if (!deps_.executor.host_addressable()) {
    if (!has_buffers()) save.copy.resize(static_cast<size_t>(bytes_));
    copy = has_buffers() ? buffers_[0] : save.copy.data();
    RETURN_IF_ERROR(CopyStates(copy));
  }
  save.boxes = BoxesIn(copy);
  save.copied = begun;
  Push(std::move(save));
  ASSIGN_OR_RETURN(const std::vector<SaveReport> last, Finish());
  for (SaveReport report : last) {
    report.stall_s = report.save_s;
    reports.push_back(std::move(report));
  }
  return reports;
}

}  // namespace strata
