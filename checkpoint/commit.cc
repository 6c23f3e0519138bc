#include "checkpoint/commit.h"

#include <filesystem>

#include "absl/strings/str_format.h"
#include "checkpoint/catalog.h"
#include "checkpoint/internal/block_file.h"
#include "checkpoint/reader.h"
#include "core/base/status.h"

namespace strata {
namespace {

// The manifest's text, known to be one that the reader accepts.
absl::StatusOr<std::string> MakeManifest(int64_t step, const CheckpointMeta& meta,
                                         const std::vector<ShardRecord>& records) {
  ASSIGN_OR_RETURN(const Manifest manifest, MergeShards(step, meta, records));
  std::string text = ToJson(manifest);
  ASSIGN_OR_RETURN(const Manifest parsed, ParseManifest(text));
  if (parsed.meta.config != meta.config || parsed.meta.mesh != meta.mesh) {
    return absl::InvalidArgumentError("the config's or the mesh's text is not UTF-8");
  }
  return text;
}

// Moves root/names to the trash, then empties it: a checkpoint is never seen half deleted.
absl::Status Discard(Env& env, const std::string& root, const std::vector<std::string>& names) {
  const std::string trash = root + "/.trash";
  RETURN_IF_ERROR(env.RemoveAll(trash));
  if (names.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(env.MakeDirs(trash));
  for (const std::string& name : names) RETURN_IF_ERROR(env.Rename(root + "/" + name, trash + "/" + name));
  RETURN_IF_ERROR(env.SyncDir(root));
  return env.RemoveAll(trash);
}

// Frees the disk from what can never be loaded: the trash, and saves that ended before their manifest was written.
absl::Status RemoveBroken(Env& env, const std::string& root) {
  RETURN_IF_ERROR(Discard(env, root, {}));
  ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, ListCheckpoints(env, root));
  for (const CheckpointEntry& entry : entries) {
    const std::string dir = root + "/" + entry.name;
    if (!entry.committed && !env.Exists(dir + "/" + kManifestName)) RETURN_IF_ERROR(env.RemoveAll(dir));
  }
  return absl::OkStatus();
}

// A checkpoint of the same name makes way for the one in tmp_dir, which is whole by now and found under that name too.
absl::Status Publish(Env& env, const std::string& root, const std::string& tmp_dir, const std::string& name) {
  const std::string path = root + "/" + name;
  if (env.Exists(path)) {
    RETURN_IF_ERROR(env.SyncDir(root));
    RETURN_IF_ERROR(Discard(env, root, {name}));
  }
  RETURN_IF_ERROR(env.Rename(tmp_dir, path));
  return env.SyncDir(root);
}

absl::Status CleanUp(Env& env, const std::string& root, const std::string& name, int keep) {
  RETURN_IF_ERROR(WriteTextAtomically(env, root + "/latest", name + "\n"));
  RETURN_IF_ERROR(CheckpointReader::Open(env, root + "/" + name).status());  // before anything is deleted
  ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, ListCheckpoints(env, root));
  std::vector<std::string> old;
  int others = 0;
  for (const CheckpointEntry& entry : entries) {
    if (entry.name == name) continue;
    if (!entry.committed || ++others >= keep) old.push_back(entry.name);
  }
  return Discard(env, root, old);
}

}  // namespace

absl::StatusOr<std::string> BeginSave(Env& env, const std::string& root, int64_t step) {
  if (step < 0) return absl::InvalidArgumentError(absl::StrFormat("step %d", step));
  const bool new_root = !env.Exists(root);
  if (!new_root) RETURN_IF_ERROR(RemoveBroken(env, root));
  const std::string stem = root + "/" + StepDirName(step) + ".tmp-";
  int k = 0;
  while (env.Exists(stem + std::to_string(k))) ++k;
  const std::string tmp_dir = stem + std::to_string(k);
  RETURN_IF_ERROR(env.MakeDirs(tmp_dir));
  if (new_root) RETURN_IF_ERROR(env.SyncDir(std::filesystem::absolute(root).parent_path()));
  return tmp_dir;
}

absl::Status WriteManifest(Env& env, const std::string& folder, int64_t step, const std::vector<ShardRecord>& records,
                           const CheckpointMeta& meta) {
  ASSIGN_OR_RETURN(const std::string manifest, MakeManifest(step, meta, records));
  for (const ShardRecord& record : records) {
    RETURN_IF_ERROR(internal::BlockFile::Open(env, folder, record.file).status());
  }
  return WriteTextAtomically(env, folder + "/" + kManifestName, manifest);
}

absl::StatusOr<Committed> CommitCheckpoint(Env& env, const std::string& root, int64_t step, const std::string& tmp_dir,
                                           const std::vector<ShardRecord>& records, const CheckpointMeta& meta,
                                           int keep) {
  if (keep < 1) return absl::InvalidArgumentError(absl::StrFormat("keep %d checkpoints: at least 1", keep));
  RETURN_IF_ERROR(WriteManifest(env, tmp_dir, step, records, meta));
  const std::string name = StepDirName(step);
  RETURN_IF_ERROR(Publish(env, root, tmp_dir, name));
  return Committed{root + "/" + name, CleanUp(env, root, name, keep)};
}

}  // namespace strata
