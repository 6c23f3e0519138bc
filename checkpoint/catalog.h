#pragma once
// The folder of a job's checkpoints: root/step-0000000100 (committed), root/step-0000000100.tmp-0 (a save under way, or one
// that a crash cut short), root/latest (the newest one's name: a hint for people and scripts, never trusted), root/.trash.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/env.h"

namespace strata {

struct CheckpointEntry {
  int64_t step = 0;
  std::string name;  // below root
  bool committed = false;
};

std::string StepDirName(int64_t step);  // "step-0000000100": ten digits or more

// Newest step first, committed before unfinished. Looks at names only. NotFound if there is no such folder.
absl::StatusOr<std::vector<CheckpointEntry>> ListCheckpoints(Env& env, const std::string& root);

// Everything that is wrong with the checkpoint in `dir`, each problem naming the file and, for damaged bytes, their range
// and the tensors in it; empty if all is well. Reads every byte.
std::vector<std::string> VerifyCheckpoint(Env& env, const std::string& dir);

struct NewestValid {
  std::string path;
  std::vector<std::string> skipped;  // newer ones that failed, with the reason
};

// The newest checkpoint that VerifyCheckpoint finds nothing wrong with. An unfinished folder that is whole (the crash came
// after its manifest was written) counts. NotFound, with the reasons, if there is none.
absl::StatusOr<NewestValid> FindNewestValid(Env& env, const std::string& root);

}  // namespace strata
