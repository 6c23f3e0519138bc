#pragma once
// cuDNN's backend interface, opened at run time: $STRATA_CUDNN where it is set, else libcudnn.so.9. CUDA sources only.

#include <cudnn_backend.h>

#include <string>

#include "absl/status/statusor.h"

namespace strata {

struct CudnnLibrary {
  decltype(cudnnGetVersion)* GetVersion;
  decltype(cudnnGetErrorString)* GetErrorString;
  decltype(cudnnGetLastErrorString)* GetLastErrorString;
  decltype(cudnnCreate)* Create;
  decltype(cudnnDestroy)* Destroy;
  decltype(cudnnSetStream)* SetStream;
  decltype(cudnnBackendCreateDescriptor)* CreateDescriptor;
  decltype(cudnnBackendDestroyDescriptor)* DestroyDescriptor;
  decltype(cudnnBackendSetAttribute)* SetAttribute;
  decltype(cudnnBackendGetAttribute)* GetAttribute;
  decltype(cudnnBackendFinalize)* Finalize;
  decltype(cudnnBackendExecute)* Execute;

  // It stays open for the life of the process. Errors: FailedPrecondition saying what was found and what is needed.
  static absl::StatusOr<CudnnLibrary> Open();

  // OK, or with cuDNN's own words Internal, ResourceExhausted for memory, FailedPrecondition for what it does not support.
  absl::Status Check(cudnnStatus_t status, const char* call) const;
};

// Of cudnnGetVersion(): 91900 is 9.19.0. 9.10.0 and 9.10.1 compute wrong gradients; 9.14 and 9.19 are known to be right.
absl::Status CheckCudnnVersion(int64_t version);
std::string CudnnVersionName(int64_t version);

}  // namespace strata
