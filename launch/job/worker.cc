#include "launch/job/worker.h"

#include <pthread.h>

#include <utility>

#include "core/base/check.h"

namespace strata {

Worker::Worker(const std::string& name) : thread_([this] { Work(); }) {
  pthread_setname_np(thread_.native_handle(), name.c_str());
}

Worker::~Worker() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  begun_.notify_one();
  thread_.join();
}

void Worker::Run(std::function<absl::Status()> task) {
  {
    const std::lock_guard lock(mutex_);
    STRATA_CHECK(task_ == nullptr);
    task_ = std::move(task);
  }
  begun_.notify_one();
}

bool Worker::done() const {
  const std::lock_guard lock(mutex_);
  return task_ == nullptr;
}

absl::Status Worker::Wait() {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [&] { return task_ == nullptr; });
  // A copy of its own text: two threads never share a message.
  return absl::Status(status_.code(), std::string(status_.message()));
}

void Worker::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    begun_.wait(lock, [&] { return stop_ || task_ != nullptr; });
    if (task_ == nullptr) return;
    lock.unlock();
    absl::Status status = task_();
    lock.lock();
    status_ = std::move(status);
    task_ = nullptr;
    ended_.notify_one();
  }
}

}  // namespace strata
