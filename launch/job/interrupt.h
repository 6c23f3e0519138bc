#pragma once
// Ctrl-C, SIGTERM and SIGUSR1 as a request that the training loop honours at the end of a step. A second signal of a kind
// ends the process.

namespace strata {

class InterruptGuard {  // installs handlers for its lifetime; one at a time
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  static bool Requested();
};

}  // namespace strata
