// convert.

#include <cstdio>

#include "core/base/status.h"
#include "launch/convert/convert.h"
#include "launch/verbs/verbs.h"
#include "models/hf/config_json.h"

namespace strata {

absl::Status RunConvert(const ConvertOptions& o) {
  const std::string from = HfFolderOf(o.from), to = HfFolderOf(o.to);
  if (from.empty() == to.empty()) {
    return absl::InvalidArgumentError(
        "one of the two must be hf:DIR: `strata convert hf:DIR DIR`, or the other way round");
  }
  const Verification verify = o.verify ? Verification::kYes : Verification::kNo;
  ASSIGN_OR_RETURN(const std::string report, from.empty() ? ExportHf(Env::Posix(), o.from, to, verify)
                                                          : ImportHf(Env::Posix(), from, o.to, verify));
  std::fputs(report.c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace strata
