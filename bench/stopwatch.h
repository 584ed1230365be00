// Times what one device does, without the host's share on an accelerator.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <chrono>
#include <vector>

namespace strobe::bench {

/// start() .. stop() around each timed call; collect() gives their times in order.
///
/// On an accelerator the times are those between two events on the current stream. Before each call the L2 cache is
/// overwritten, which also keeps the device busy while the host queues the call, so that launch gaps do not count.
class Stopwatch {
 public:
  explicit Stopwatch(at::Device device);

  void start();
  void stop();

  /// Milliseconds of the calls since the last collect(); waits for the device.
  std::vector<double> collect();

 private:
  using Clock = std::chrono::steady_clock;

  void mark();

  at::Device device_;
  at::Tensor flush_;                      // twice the largest L2 cache
  std::vector<c10::Event> events_;        // accelerator: start, stop, start, stop ..
  std::vector<Clock::time_point> times_;  // CPU: likewise
};

}  // namespace strobe::bench
