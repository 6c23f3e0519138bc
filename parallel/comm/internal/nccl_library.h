#pragma once
// NCCL, opened at run time: $STRATA_NCCL where it is set, else libnccl.so.2.

#include <nccl.h>

#include <string>

#include "absl/status/statusor.h"

namespace strata::internal {

struct NcclLibrary {
  decltype(ncclGetVersion)* GetVersion;
  decltype(ncclGetErrorString)* GetErrorString;
  decltype(ncclGetLastError)* GetLastError;
  decltype(ncclGetUniqueId)* GetUniqueId;
  decltype(ncclCommInitRankConfig)* CommInitRankConfig;
  decltype(ncclCommGetAsyncError)* CommGetAsyncError;
  decltype(ncclCommFinalize)* CommFinalize;
  decltype(ncclCommDestroy)* CommDestroy;
  decltype(ncclCommAbort)* CommAbort;
  decltype(ncclGroupStart)* GroupStart;
  decltype(ncclGroupEnd)* GroupEnd;
  decltype(ncclAllReduce)* AllReduce;
  decltype(ncclReduceScatter)* ReduceScatter;
  decltype(ncclAllGather)* AllGather;
  decltype(ncclBroadcast)* Broadcast;
  decltype(ncclSend)* Send;
  decltype(ncclRecv)* Recv;
  // Null where the library is older.
  decltype(ncclAlltoAll)* AlltoAll;
  decltype(ncclMemAlloc)* MemAlloc;
  decltype(ncclMemFree)* MemFree;
  decltype(ncclCommRegister)* CommRegister;
  decltype(ncclCommDeregister)* CommDeregister;
  decltype(ncclCommWindowRegister)* CommWindowRegister;
  decltype(ncclCommWindowDeregister)* CommWindowDeregister;
  std::string version;  // "2.28.9"

  // It stays open for the life of the process, with NVLink multicast off. Errors: FailedPrecondition saying what was found
  // and what is needed.
  static absl::StatusOr<NcclLibrary> Open();

  // OK, also for what goes on in the background; else Unavailable for a lost peer and Internal, with NCCL's own words.
  absl::Status Check(ncclResult_t result, const char* call) const;
};

}  // namespace strata::internal
