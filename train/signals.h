// SIGINT and SIGTERM as a question that the loop asks between updates.
#pragma once

#include <csignal>

namespace strobe::train {

/// While it lives, the first SIGINT or SIGTERM is only noted; another of the same kind, a second or more after it, has
/// its usual effect. Restores the handlers. One at a time.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

  int received() const;  // the signal's number, 0 where none has come

 private:
  struct sigaction interrupt_before_;
  struct sigaction terminate_before_;
};

}  // namespace strobe::train
