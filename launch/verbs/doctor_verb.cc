// doctor.

#include <cstdio>

#include "launch/doctor/doctor.h"
#include "launch/verbs/verbs.h"

namespace strata {

absl::Status RunDoctor(const DoctorOptions& options) {
  std::fputs(Print(Judge(ReadMachine(Env::Posix(), options.folder))).c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace strata
