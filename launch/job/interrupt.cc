#include "launch/job/interrupt.h"

#include <csignal>

namespace strata {
namespace {

// A signal handler can reach nothing else.
volatile std::sig_atomic_t requested = 0;

void OnSignal(int signal) {
  requested = 1;
  std::signal(signal, SIG_DFL);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  requested = 0;
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  std::signal(SIGUSR1, OnSignal);
}

InterruptGuard::~InterruptGuard() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGUSR1, SIG_DFL);
}

bool InterruptGuard::Requested() { return requested != 0; }

}  // namespace strata
