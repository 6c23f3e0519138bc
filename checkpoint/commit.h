#pragma once
// Saving, rank 0's part: before and after all ranks called WriteShard. One save at a time in a root.
// Whenever the process dies, FindNewestValid finds the new checkpoint or the one before it, whole.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/manifest.h"
#include "core/base/env.h"

namespace strata {

// Makes a fresh folder root/step-N.tmp-K for the ranks to write in, and returns its path. Removes what crashed saves left
// without a manifest, so that a full disk does not stay full.
absl::StatusOr<std::string> BeginSave(Env& env, const std::string& root, int64_t step);

struct Committed {
  std::string path;      // of the checkpoint, which is on disk whatever `cleanup` says
  absl::Status cleanup;  // of advancing `latest` and removing old ones
};

// Makes a checkpoint of a folder whose data files `records` describe: its manifest, written, synced and renamed.
// Errors: InvalidArgument, naming the tensor, if the records do not cover every tensor exactly once; DataLoss if a file is
// not of the recorded size; else Env's.
absl::Status WriteManifest(Env& env, const std::string& folder, int64_t step, const std::vector<ShardRecord>& records,
                           const CheckpointMeta& meta);

// Turns tmp_dir into root/step-N: manifest written, synced and renamed, folder synced, folder renamed, root synced; then
// advances `latest` and removes leftovers of crashed saves and all but the newest `keep` checkpoints (>= 1), never the one
// just written. A step-N that exists already is replaced.
// Errors, those of WriteManifest and Env's, leave the older checkpoints alone.
absl::StatusOr<Committed> CommitCheckpoint(Env& env, const std::string& root, int64_t step, const std::string& tmp_dir,
                                           const std::vector<ShardRecord>& records, const CheckpointMeta& meta,
                                           int keep);

}  // namespace strata
