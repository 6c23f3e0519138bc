#include "core/base/thread_pool.h"

#include <sched.h>

#include <algorithm>

namespace strata {

ThreadPool::ThreadPool(int num_threads) {
  for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { Work(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::Drain(const absl::FunctionRef<void(int64_t)>& fn, int64_t num_tiles) {
  for (int64_t i = next_.fetch_add(1); i < num_tiles; i = next_.fetch_add(1)) fn(i);
}

void ThreadPool::Run(int64_t num_tiles, absl::FunctionRef<void(int64_t)> fn) {
  if (workers_.empty() || num_tiles <= 1) {
    for (int64_t i = 0; i < num_tiles; ++i) fn(i);
    return;
  }
  {
    std::lock_guard lock(mutex_);
    fn_ = &fn;
    num_tiles_ = num_tiles;
    next_ = 0;
    busy_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  wake_.notify_all();
  Drain(fn, num_tiles);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
  fn_ = nullptr;
}

void ThreadPool::Work() {
  int64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
    if (stop_) return;
    seen = generation_;
    const absl::FunctionRef<void(int64_t)> fn = *fn_;
    const int64_t num_tiles = num_tiles_;
    lock.unlock();
    Drain(fn, num_tiles);
    lock.lock();
    if (--busy_ == 0) done_.notify_one();
  }
}

int AvailableCores() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) return std::max(1u, std::thread::hardware_concurrency());
  return std::max(1, CPU_COUNT(&cores));
}

void ParallelFor(ThreadPool* pool, int64_t num_tiles, absl::FunctionRef<void(int64_t)> fn) {
  if (pool != nullptr) {
    pool->Run(num_tiles, fn);
  } else {
    for (int64_t i = 0; i < num_tiles; ++i) fn(i);
  }
}

}  // namespace strata
