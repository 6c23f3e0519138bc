#include <cstdlib>

#include "absl/strings/str_format.h"
#include "core/base/dynamic_library.h"
#include "core/base/status.h"
#include "core/kernels/cudnn_library.h"

namespace strata {

std::string CudnnVersionName(int64_t version) {
  return absl::StrFormat("%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

absl::Status CheckCudnnVersion(int64_t version) {
  constexpr int64_t kOldest = 91002, kBeyond = 100000;
  if (version >= kOldest && version < kBeyond) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat("found cuDNN %s, need 9 from %s on (9.14 and 9.19 are tested)",
                                                       CudnnVersionName(version), CudnnVersionName(kOldest)));
}

namespace {

// libcudnn.so.9 opens its parts by name, and the system's search path comes before its own folder: of a cuDNN that is named by
// its path they are opened first, or parts of another version could answer. A part that is not there is its business.
void OpenPartsBeside(const std::string& path) {
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  if (folder.empty()) return;
  for (const char* part :
       {"graph", "ops", "cnn", "adv", "heuristic", "engines_runtime_compiled", "engines_precompiled"}) {
    const std::string name = absl::StrFormat("%slibcudnn_%s.so.9", folder, part);
    DynamicLibrary::Open({&name, 1}).status().IgnoreError();
  }
}

}  // namespace

absl::StatusOr<CudnnLibrary> CudnnLibrary::Open() {
  const char* own = std::getenv("STRATA_CUDNN");
  const std::string name = own != nullptr && *own != 0 ? own : "libcudnn.so.9";
  OpenPartsBeside(name);
  ASSIGN_OR_RETURN(const DynamicLibrary file, DynamicLibrary::Open({&name, 1}));
  CudnnLibrary lib{};
  absl::Status s;
  s.Update(file.Load("cudnnGetVersion", lib.GetVersion));
  s.Update(file.Load("cudnnGetErrorString", lib.GetErrorString));
  s.Update(file.Load("cudnnGetLastErrorString", lib.GetLastErrorString));
  s.Update(file.Load("cudnnCreate", lib.Create));
  s.Update(file.Load("cudnnDestroy", lib.Destroy));
  s.Update(file.Load("cudnnSetStream", lib.SetStream));
  s.Update(file.Load("cudnnBackendCreateDescriptor", lib.CreateDescriptor));
  s.Update(file.Load("cudnnBackendDestroyDescriptor", lib.DestroyDescriptor));
  s.Update(file.Load("cudnnBackendSetAttribute", lib.SetAttribute));
  s.Update(file.Load("cudnnBackendGetAttribute", lib.GetAttribute));
  s.Update(file.Load("cudnnBackendFinalize", lib.Finalize));
  s.Update(file.Load("cudnnBackendExecute", lib.Execute));
  RETURN_IF_ERROR(s);
  RETURN_IF_ERROR(CheckCudnnVersion(static_cast<int64_t>(lib.GetVersion())));
  return lib;
}

absl::Status CudnnLibrary::Check(cudnnStatus_t status, const char* call) const {
  if (status == CUDNN_STATUS_SUCCESS) return absl::OkStatus();
  char reason[512] = {};
  GetLastErrorString(reason, sizeof(reason));
  const std::string message = absl::StrFormat("%s: %s %s", call, GetErrorString(status), reason);
  if (status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED) return absl::ResourceExhaustedError(message);
  return CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED ? absl::FailedPreconditionError(message)
                                                                     : absl::InternalError(message);
}

}  // namespace strata
