#pragma once
// What `strata ckpt ls` and `strata ckpt verify` print.

#include <string>

#include "absl/status/statusor.h"
#include "core/base/env.h"

namespace strata {

// One line a checkpoint of `root`, newest first; reads manifests, not data. NotFound if there is no such folder.
absl::StatusOr<std::string> DescribeCheckpoints(Env& env, const std::string& root);

struct VerifyReport {
  bool ok = false;   // something was verified, and nothing wrong was found
  std::string text;  // one line a checkpoint, and one a problem below it
};

// `path` is a checkpoint, or a root: then all of its committed ones. Reads every byte.
VerifyReport DescribeVerify(Env& env, const std::string& path);

}  // namespace strata
