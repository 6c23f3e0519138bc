#pragma once
// The built program, as a user runs it.

#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"

namespace strata::testing {

struct Ended {
  int code = -1;
  std::string out;  // stdout and stderr
};

// `strata ARGUMENTS`, by the shell. STRATA_BINARY is the test program's.
inline Ended Strata(const std::string& arguments) {
  std::FILE* const pipe = popen(absl::StrCat(STRATA_BINARY, " ", arguments, " 2>&1").c_str(), "r");
  Ended e;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) e.out.append(buffer, n);
  e.code = WEXITSTATUS(pclose(pipe));
  return e;
}

}  // namespace strata::testing
