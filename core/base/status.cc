#include "core/base/status.h"

#include "absl/strings/str_format.h"

namespace strata {

absl::Status Annotate(const absl::Status& status, std::string_view prefix) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrFormat("%s: %s", prefix, status.message()));
}

}  // namespace strata
