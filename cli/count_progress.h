// How far a command is that counts what it has done.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "train/progress.h"

namespace strobe::cli {

/// "images 640/29806  310/s  left 1:34" on standard error, as train::ProgressLine shows it.
class CountProgress {
 public:
  explicit CountProgress(std::string what) : what_(std::move(what)), start_(Clock::now()) {}

  void operator()(int64_t done, int64_t total);
  void note(const std::string& text);  // a line that stays, such as a warning

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  Clock::time_point start_;
  train::ProgressLine line_;
};

}  // namespace strobe::cli
