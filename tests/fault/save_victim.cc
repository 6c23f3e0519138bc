// Saves the test checkpoint of a step over two ranks, and dies on the way if asked to.
// save_victim ROOT STEP [K]: SIGKILL before the K-th operation on files. Exit 0 if saved, 1 if not.

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "tests/testing/fault_env.h"
#include "tests/testing/test_checkpoint.h"

int main(int argc, char** argv) {
  if (argc < 3) return 64;
  int64_t operations_left = argc > 3 ? std::atoll(argv[3]) : -1;
  strata::testing::FaultEnv deadly([&](std::string_view, const std::string&) {
    if (--operations_left == 0) std::raise(SIGKILL);
    return absl::OkStatus();
  });
  strata::Env& env = argc > 3 ? deadly : strata::Env::Posix();
  const auto saved = strata::testing::SaveTestCheckpoint(env, argv[1], std::atoll(argv[2]), 2, 1);
  if (!saved.ok()) std::fprintf(stderr, "%s\n", saved.status().ToString().c_str());
  return saved.ok() && saved->cleanup.ok() ? 0 : 1;
}
