#pragma once
// A fixed set of worker threads for CPU kernels. The caller works too, so num_threads = 1 has no worker at all.
// Work is cut into tiles by the kernel, never by the pool: a result does not depend on the number of threads.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace strata {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(tile) once for every tile in [0, num_tiles), in any order; returns when all are done. No allocation.
  // One caller at a time; fn must not call Run of the same pool.
  void Run(int64_t num_tiles, absl::FunctionRef<void(int64_t)> fn);

 private:
  void Work();
  void Drain(const absl::FunctionRef<void(int64_t)>& fn, int64_t num_tiles);

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const absl::FunctionRef<void(int64_t)>* fn_ = nullptr;  // guarded by mutex_, as are the three below
  int64_t num_tiles_ = 0;
  int64_t generation_ = 0;
  int busy_ = 0;
  bool stop_ = false;
  std::atomic<int64_t> next_{0};
  std::vector<std::thread> workers_;
};

// Cores that this process may use: its affinity mask, which taskset, mpirun and Slurm set. At least 1.
int AvailableCores();

// Runs on `pool`, or in order on the calling thread where there is none.
void ParallelFor(ThreadPool* pool, int64_t num_tiles, absl::FunctionRef<void(int64_t)> fn);

}  // namespace strata
