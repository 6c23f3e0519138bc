#include "launch/job/interrupt.h"

#include <signal.h>

#include <atomic>

namespace strata {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR1};

// A signal handler can reach nothing else. It runs on any thread, and ranks read on theirs.
std::atomic<bool> requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void OnSignal(int) { requested = true; }

void Handle(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART | SA_RESETHAND;  // a second one ends the process
  for (const int signal : kSignals) sigaction(signal, &action, nullptr);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  requested = false;
  Handle(OnSignal);
}

InterruptGuard::~InterruptGuard() { Handle(SIG_DFL); }

bool InterruptGuard::Requested() { return requested; }

}  // namespace strata
