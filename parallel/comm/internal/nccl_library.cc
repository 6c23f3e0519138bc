#include "parallel/comm/internal/nccl_library.h"

#include <cstdlib>

#include "absl/strings/str_format.h"
#include "core/base/dynamic_library.h"
#include "core/base/status.h"

namespace strata::internal {

absl::StatusOr<NcclLibrary> NcclLibrary::Open() {
  const char* own = std::getenv("STRATA_NCCL");
  const std::string name = own != nullptr && *own != 0 ? own : "libnccl.so.2";
  // A program that dies while it uses multicast can leave the GPUs of a host unusable.
  setenv("NCCL_NVLS_ENABLE", "0", 1);  // NOLINT(concurrency-mt-unsafe)
  ASSIGN_OR_RETURN(const DynamicLibrary file, DynamicLibrary::Open({&name, 1}));
  NcclLibrary lib{};
  absl::Status s;
  s.Update(file.Load("ncclGetVersion", lib.GetVersion));
  s.Update(file.Load("ncclGetErrorString", lib.GetErrorString));
  s.Update(file.Load("ncclGetLastError", lib.GetLastError));
  s.Update(file.Load("ncclGetUniqueId", lib.GetUniqueId));
  s.Update(file.Load("ncclCommInitRankConfig", lib.CommInitRankConfig));
  s.Update(file.Load("ncclCommGetAsyncError", lib.CommGetAsyncError));
  s.Update(file.Load("ncclCommFinalize", lib.CommFinalize));
  s.Update(file.Load("ncclCommDestroy", lib.CommDestroy));
  s.Update(file.Load("ncclCommAbort", lib.CommAbort));
  s.Update(file.Load("ncclGroupStart", lib.GroupStart));
  s.Update(file.Load("ncclGroupEnd", lib.GroupEnd));
  s.Update(file.Load("ncclAllReduce", lib.AllReduce));
  s.Update(file.Load("ncclReduceScatter", lib.ReduceScatter));
  s.Update(file.Load("ncclAllGather", lib.AllGather));
  s.Update(file.Load("ncclBroadcast", lib.Broadcast));
  s.Update(file.Load("ncclSend", lib.Send));
  s.Update(file.Load("ncclRecv", lib.Recv));
  RETURN_IF_ERROR(s);
  file.Load("ncclAlltoAll", lib.AlltoAll).IgnoreError();
  file.Load("ncclMemAlloc", lib.MemAlloc).IgnoreError();
  file.Load("ncclMemFree", lib.MemFree).IgnoreError();
  file.Load("ncclCommRegister", lib.CommRegister).IgnoreError();
  file.Load("ncclCommDeregister", lib.CommDeregister).IgnoreError();
  file.Load("ncclCommWindowRegister", lib.CommWindowRegister).IgnoreError();
  file.Load("ncclCommWindowDeregister", lib.CommWindowDeregister).IgnoreError();
  constexpr int kOldest = 22000;
  int version = 0;
  RETURN_IF_ERROR(lib.Check(lib.GetVersion(&version), "ncclGetVersion"));
  lib.version = absl::StrFormat("%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
  if (version < kOldest) {
    return absl::FailedPreconditionError(absl::StrFormat("found NCCL %s in %s, need 2.20 or later", lib.version, name));
  }
  return lib;
}

absl::Status NcclLibrary::Check(ncclResult_t result, const char* call) const {
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  const std::string message = absl::StrFormat("%s: %s: %s", call, GetErrorString(result), GetLastError(nullptr));
  return result == ncclRemoteError || result == ncclSystemError ? absl::UnavailableError(message)
                                                                : absl::InternalError(message);
}

}  // namespace strata::internal
