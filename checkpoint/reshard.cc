#include "checkpoint/reshard.h"

#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "checkpoint/commit.h"
#include "checkpoint/pieces.h"
#include "checkpoint/writer.h"
#include "core/base/status.h"

namespace strata {
namespace {

std::string Spec(DType dtype, const Shape& shape) { return absl::StrFormat("%s%s", Name(dtype), ToString(shape)); }

absl::Status CheckSameTensors(const CheckpointReader& reader, std::span<const Plan> plans) {
  const auto differs = [&](const std::string& what) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s does not hold what the job would save: %s; train goes on from it all the same if model and "
                        "optimizer are equal",
                        reader.dir(), what));
  };
  std::set<std::string, std::less<>> of_job;
  for (const Plan& plan : plans) {
    for (const PlannedState& s : plan.states) {
      if (!IsSaved(s) || !of_job.insert(s.name).second) continue;
      const TensorRecord* t = reader.Find(s.name);
      if (t == nullptr) return differs(s.name + " is not in it");
      if (t->dtype == s.spec.dtype && t->global == s.model_shape) continue;
      return differs(absl::StrFormat("%s is %s there and %s in the job", s.name, Spec(t->dtype, t->global),
                                     Spec(s.spec.dtype, s.model_shape)));
    }
  }
  for (const TensorRecord& t : reader.tensors()) {
    if (!of_job.contains(t.name)) return differs(t.name + " is not in the job");
  }
  return absl::OkStatus();
}

absl::StatusOr<ShardRecord> WriteFile(Env& env, CheckpointReader& reader, const std::string& folder, int file,
                                      const std::vector<TensorBox>& boxes) {
  ASSIGN_OR_RETURN(ShardWriter writer, ShardWriter::Create(env, folder, file, boxes));
  for (size_t i = 0; i < boxes.size(); ++i) {
    RETURN_IF_ERROR(
        reader.ReadSlabs(boxes[i], [&](std::span<const std::byte> slab) { return writer.Append(i, slab); }));
  }
  return writer.Finish();
}

absl::Status WriteCheckpoint(Env& env, CheckpointReader& reader, const std::string& folder,
                             const ReshardTarget& target) {
  std::vector<ShardRecord> records;
  for (size_t i = 0; i < target.files.size(); ++i) {
    ASSIGN_OR_RETURN(records.emplace_back(), WriteFile(env, reader, folder, static_cast<int>(i), target.files[i]));
  }
  CheckpointMeta meta = reader.meta();
  meta.mesh = target.mesh;
  return WriteManifest(env, folder, reader.step(), records, meta);
}

}  // namespace

absl::StatusOr<ReshardTarget> TargetOfPlans(const CheckpointReader& reader, std::span<const Plan> plans,
                                            std::string mesh) {
  RETURN_IF_ERROR(CheckSameTensors(reader, plans));
  ReshardTarget target{std::move(mesh), {}};
  for (const std::vector<PlannedState>& states : StatesToSave(plans)) {
    std::vector<TensorBox>& boxes = target.files.emplace_back();
    for (const PlannedState& s : states) {
      for (Piece& piece : PiecesOf(s)) boxes.push_back(std::move(piece.box));
    }
  }
  return target;
}

absl::StatusOr<ReshardTarget> TargetOfFiles(const CheckpointReader& reader, int files) {
  if (files < 1 || files > kMaxFiles) {
    return absl::InvalidArgumentError(absl::StrFormat("%d files: 1 to %d", files, kMaxFiles));
  }
  int64_t total = 0;
  for (const TensorRecord& t : reader.tensors()) total += t.global.elements() * SizeOf(t.dtype);
  const int64_t share = std::max<int64_t>(1, (total + files - 1) / files);  // bytes of a file
  ReshardTarget target{reader.meta().mesh, std::vector<std::vector<TensorBox>>(files)};
  int64_t at = 0;  // bytes before the next element
  for (const TensorRecord& t : reader.tensors()) {
    const int64_t width = SizeOf(t.dtype), elements = t.global.elements();
    for (int64_t first = 0; first < elements;) {
      const int64_t file = at / share, room = ((file + 1) * share - at + width - 1) / width;
      const int64_t count = std::min(room, elements - first);
      ForEachBoxOfRange(t.global, first, count, [&](const Shape& offset, const Shape& size) {
        target.files[file].push_back({t.name, t.dtype, t.global, offset, size});
      });
      first += count;
      at += count * width;
    }
  }
  return target;
}

absl::Status Reshard(Env& env, CheckpointReader& reader, std::string to, const ReshardTarget& target) {
  while (to.size() > 1 && to.ends_with('/')) to.pop_back();
  if (env.Exists(to)) return absl::AlreadyExistsError(absl::StrFormat("%s exists already", to));
  const std::string folder = to + ".tmp-0";
  RETURN_IF_ERROR(env.RemoveAll(folder));  // what a killed one left
  RETURN_IF_ERROR(env.MakeDirs(folder));
  absl::Status status = WriteCheckpoint(env, reader, folder, target);
  if (status.ok()) status = env.Rename(folder, to);
  if (!status.ok()) {
    env.RemoveAll(folder).IgnoreError();  // the first error is the one to tell
    return status;
  }
  return env.SyncDir(std::filesystem::absolute(to).parent_path());
}

}  // namespace strata
