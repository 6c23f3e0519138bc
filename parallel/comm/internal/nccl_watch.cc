#include "parallel/comm/internal/nccl_watch.h"

#include <cuda_runtime.h>

#include "absl/strings/str_format.h"

namespace strata::internal {

NcclWatch::NcclWatch(int gpu, int rank) : rank_(rank), thread_([this, gpu] { Run(gpu); }) {}

NcclWatch::~NcclWatch() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void NcclWatch::Add(NcclCommunicator* c) {
  const std::lock_guard lock(mutex_);
  watched_.push_back(c);
}

void NcclWatch::Remove(NcclCommunicator* c) {
  const std::lock_guard lock(mutex_);
  NcclCommunicator::AbortAll(watched_);
  std::erase(watched_, c);
}

void NcclWatch::Run(int gpu) {
  cudaSetDevice(gpu);
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, std::chrono::milliseconds(20), [&] { return stop_; })) LookAtAll();
}

void NcclWatch::LookAtAll() {
  absl::Status first;
  for (NcclCommunicator* c : watched_) {
    first = c->Look();
    if (!first.ok()) break;
  }
  if (first.ok()) return;
  const absl::Status told = absl::UnavailableError(absl::StrFormat("rank %d: %s", rank_, std::string(first.message())));
  for (NcclCommunicator* c : watched_) {
    c->Doom(first);
    c->Tell(told);
  }
  NcclCommunicator::AbortAll(watched_);
}

}  // namespace strata::internal
