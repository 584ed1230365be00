#include "train/signals.h"

#include <ctime>

namespace strobe::train {
namespace {

/// Launchers and schedulers send a signal to a process and to its whole group: what follows at once is the same
/// request.
constexpr std::time_t kOneRequest = 1;  // seconds

volatile std::sig_atomic_t received_signal = 0;
volatile std::time_t received_at = 0;

std::time_t seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec;
}

void note(int signal) {
  if (signal != received_signal) {
    received_signal = signal;
    received_at = seconds();
  } else if (seconds() > received_at + kOneRequest) {
    struct sigaction usual = {};
    usual.sa_handler = SIG_DFL;
    ::sigaction(signal, &usual, nullptr);
    ::raise(signal);
  }
}

}  // namespace

SignalGuard::SignalGuard() {
  received_signal = 0;
  struct sigaction action = {};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, &interrupt_before_);
  ::sigaction(SIGTERM, &action, &terminate_before_);
}

SignalGuard::~SignalGuard() {
  ::sigaction(SIGINT, &interrupt_before_, nullptr);
  ::sigaction(SIGTERM, &terminate_before_, nullptr);
}

int SignalGuard::received() const { return received_signal; }

}  // namespace strobe::train
