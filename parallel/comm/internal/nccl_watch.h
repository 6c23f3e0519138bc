#pragma once
// A thread that looks after the NCCL communicators of a rank.

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "parallel/comm/internal/nccl_communicator.h"

namespace strata::internal {

// Every 20 ms it looks at each communicator. At the first error all of them are aborted, and the other ranks are told why.
// Thread-safe.
class NcclWatch {
 public:
  NcclWatch(int gpu, int rank);
  ~NcclWatch();
  NcclWatch(const NcclWatch&) = delete;
  NcclWatch& operator=(const NcclWatch&) = delete;

  void Add(NcclCommunicator* c);
  // It is not looked at any more when this returns, and holds nothing on the device if it was aborted.
  void Remove(NcclCommunicator* c);

 private:
  void Run(int gpu);
  void LookAtAll();  // under mutex_

  const int rank_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;                       // guarded by mutex_, as is
  std::vector<NcclCommunicator*> watched_;  // not owned
  std::thread thread_;
};

}  // namespace strata::internal
