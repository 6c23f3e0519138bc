#pragma once
// The built program, as a user runs it.

#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"

namespace strata::testing {

// Beside the test program, as in a bundle, or where it was built.
inline std::string StrataProgram() {
  std::error_code error;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "strata";
  return std::filesystem::exists(here, error) ? here.string() : STRATA_BINARY;
}

struct Ended {
  int code = -1;
  std::string out;  // stdout and stderr
};

// `strata ARGUMENTS`, by the shell.
inline Ended Strata(const std::string& arguments) {
  std::FILE* const pipe = popen(absl::StrCat(StrataProgram(), " ", arguments, " 2>&1").c_str(), "r");
  Ended e;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) e.out.append(buffer, n);
  e.code = WEXITSTATUS(pclose(pipe));
  return e;
}

}  // namespace strata::testing
