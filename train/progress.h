// The line that shows how far an epoch has come.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace strobe::train {

struct ProgressState {
  int64_t epoch = 0;
  int64_t epochs = 0;
  int64_t batch = 0;    // done in this epoch
  int64_t batches = 0;  // in this epoch
  double loss = 0.0;    // per counted item, so far in this epoch
  double lr = 0.0;
  double tokens_per_second = 0.0;  // counted items
  double padding = 0.0;            // share of the slots
  double seconds_left = 0.0;       // in this epoch
};

std::string format_progress(const ProgressState& state);
std::string format_duration(double seconds);  // "1:02:03", "2:03"

/// Writes to standard error: on a terminal one line that rewrites itself several times a second, elsewhere a line every
/// 30 seconds.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  bool due() const;  // asks before the state is gathered, which may synchronise with a device
  void show(const ProgressState& state);
  void show(const std::string& text);
  void clear();  // takes the line off the terminal, so that something else can be written there

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_;
  bool visible_ = false;
  Clock::time_point last_;
};

}  // namespace strobe::train
