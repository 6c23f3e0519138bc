#pragma once
// A thread that runs tasks of its owner, one at a time.

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"

namespace strata {

// Used by one thread, its owner's. What a task writes may be read once it is done.
class Worker {
 public:
  explicit Worker(const std::string& name);  // of the thread, as `top -H` shows it: 15 characters at most
  ~Worker();                                 // waits for the task under way
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void Run(std::function<absl::Status()> task);  // the one before must be done
  bool done() const;                             // whether no task is under way
  absl::Status Wait();                           // for the task under way; the status of the last one, OK without any

 private:
  void Work();

  mutable std::mutex mutex_;
  std::condition_variable begun_, ended_;
  std::function<absl::Status()> task_;  // guarded by mutex_, as are the three below; empty: none is under way
  absl::Status status_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace strata
