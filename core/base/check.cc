#include "core/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace strata {

void CheckFailed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: internal error, this should hold: %s\n", file, line, expression);
  std::abort();
}

}  // namespace strata
