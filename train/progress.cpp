#include "train/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace strobe::train {
namespace {

constexpr std::chrono::milliseconds kTerminalInterval{200};
constexpr std::chrono::seconds kFileInterval{30};
constexpr const char* kEraseLine = "\r\033[K";

/// A line that wraps cannot be erased any more.
std::string fit_terminal(std::string text) {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 && text.size() >= size.ws_col) {
    text.resize(size.ws_col - 1u);
  }
  return text;
}

}  // namespace

std::string format_duration(double seconds) {
  const auto total = static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 1e9)));
  const int64_t hours = total / 3600, minutes = total / 60 % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, total % 60);
  return fmt::format("{}:{:02}", minutes, total % 60);
}

std::string format_progress(const ProgressState& state) {
  return fmt::format("epoch {}/{}  {}/{}  loss {:.4f}  lr {:.3g}  {:.0f} tokens/s  padding {:.1f} %  left {}",
                     state.epoch, state.epochs, state.batch, state.batches, state.loss, state.lr,
                     state.tokens_per_second, 100.0 * state.padding, format_duration(state.seconds_left));
}

ProgressLine::ProgressLine() : terminal_(isatty(STDERR_FILENO) == 1), last_(Clock::now()) {}

bool ProgressLine::due() const {
  const auto elapsed = Clock::now() - last_;
  return terminal_ ? elapsed >= kTerminalInterval : elapsed >= kFileInterval;
}

void ProgressLine::show(const ProgressState& state) { show(format_progress(state)); }

void ProgressLine::show(const std::string& text) {
  last_ = Clock::now();
  if (terminal_) {
    fmt::print(stderr, "{}{}", kEraseLine, fit_terminal(text));
  } else {
    fmt::print(stderr, "{}\n", text);
  }
  std::fflush(stderr);
  visible_ = terminal_;
}

void ProgressLine::clear() {
  if (!visible_) return;
  std::fputs(kEraseLine, stderr);
  std::fflush(stderr);
  visible_ = false;
}

}  // namespace strobe::train
