#include "launch/job/checkpoint_io.h"

#include <cstdio>

#include "absl/strings/str_format.h"
#include "checkpoint/commit.h"
#include "checkpoint/pieces.h"
#include "core/base/status.h"
#include "launch/config/print_config.h"
#include "launch/job/gather.h"

namespace strata {
std::string MeshText(const Job& job) {
  std::string text;
  for (const MeshAxis& a : job.axes) text += absl::StrFormat("%s%s=%d", text.empty() ? "" : " ", a.name, a.size);
  return text.empty() ? "one rank" : text;
}

absl::StatusOr<Snapshot> BoxesToSave(Executor& executor, std::span<const PlannedState> states) {
  Snapshot snapshot;
  for (const PlannedState& s : states) {
    const std::byte* data = executor.StateBytes(s).data();
    if (!executor.host_addressable()) {
      std::vector<std::byte>& copy = snapshot.copies.emplace_back(executor.StateBytes(s).size());
      RETURN_IF_ERROR(executor.ReadState(s, copy));
      data = copy.data();
    }
    for (Piece& piece : PiecesOf(s)) snapshot.boxes.push_back({std::move(piece.box), data + piece.byte_offset});
  }
  return snapshot;
}

absl::StatusOr<std::string> SaveCheckpoint(Env& env, const Job& job, std::span<const Plan> plans, Executor& executor,
                                           int rank, Communicator& control, int64_t step, int64_t next_sample) {
  const std::string root = job.config.run.out + "/checkpoints";
  absl::StatusOr<std::string> begun = "";
  if (rank == 0) begun = BeginSave(env, root, step);
  RETURN_IF_ERROR(AgreeOn(control, begun.status()));
  ASSIGN_OR_RETURN(const std::string folder, BroadcastText(control, *begun));

  const absl::StatusOr<ShardRecord> record = [&]() -> absl::StatusOr<ShardRecord> {
    ASSIGN_OR_RETURN(const Snapshot snapshot, BoxesToSave(executor, StatesToSave(plans, rank)));
    return WriteShard(env, folder, rank, snapshot.boxes);
  }();
  RETURN_IF_ERROR(AgreeOn(control, record.status()));
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, AllGatherText(control, ToJson(*record)));

  absl::StatusOr<std::string> path = "";
  if (rank == 0) {
    path = [&]() -> absl::StatusOr<std::string> {
      std::vector<ShardRecord> records;
      for (const std::string& text : texts) {
        ASSIGN_OR_RETURN(records.emplace_back(), ParseShardRecord(text));
      }
      const CheckpointMeta meta{.mesh = MeshText(job),
                                .next_sample = next_sample,
                                .seed = static_cast<uint64_t>(job.config.run.seed),
                                .config = PrintConfig(job.config, {})};
      ASSIGN_OR_RETURN(const Committed done, CommitCheckpoint(env, root, step, folder, records, meta,
                                                              static_cast<int>(job.config.checkpoint.keep)));
      if (!done.cleanup.ok()) {  // the checkpoint is whole; what could not be removed is tried again at the next save
        std::fprintf(stderr, "warning: after saving %s: %s\n", done.path.c_str(),
                     std::string(done.cleanup.message()).c_str());
      }
      return done.path;
    }();
  }
  RETURN_IF_ERROR(AgreeOn(control, path.status()));
  return BroadcastText(control, *path);
}

absl::Status LoadStates(CheckpointReader& reader, std::span<const Plan> plans, Executor& executor, LoadFor purpose) {
  RETURN_IF_ERROR(CheckLoads(reader, plans, purpose));
  std::vector<std::byte> host;
  for (const PlannedState& s : executor.plan().states) {
    if (!IsSaved(s) || s.count == 0) continue;
    if (purpose == LoadFor::kForward && SourceOf(reader, s) == nullptr) continue;  // a moment, which stays zero
    if (executor.host_addressable()) {
      RETURN_IF_ERROR(LoadState(reader, s, executor.StateBytes(s)));
      continue;
    }
    host.resize(static_cast<size_t>(s.count * SizeOf(s.spec.dtype)));
    RETURN_IF_ERROR(LoadState(reader, s, host));
    RETURN_IF_ERROR(executor.WriteState(s, host));
  }
  return absl::OkStatus();
}

}  // namespace strata
