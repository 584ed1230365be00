#include "train/signals.h"

namespace strobe::train {
namespace {

volatile std::sig_atomic_t received_signal = 0;

void note(int signal) { received_signal = signal; }

}  // namespace

SignalGuard::SignalGuard() {
  received_signal = 0;
  struct sigaction action = {};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
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
