// Times what one device does, without the host's share on an accelerator.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <chrono>
#include <vector>

namespace strobe::bench {

/// How many flushes of `flush_ms` keep the device busy for longer than the host, which takes `host_ms`, needs to queue
/// a call; within bounds.
int flushes_to_cover(double host_ms, double flush_ms);

/// start() .. stop() around each timed call; collect() gives their times in order.
///
/// On an accelerator `ms` is between two events on the current stream. Before each call the L2 cache is overwritten,
/// which also keeps the device busy while the host queues the call, so that launch gaps do not count; then it is filled
/// by reads, so that no write of the flush is left for the call to pay.
class Stopwatch {
 public:
  struct Time {
    double ms = 0;
    double host_ms = 0;  // from start to stop on the host: on the CPU the same, on an accelerator until all was queued
  };

  explicit Stopwatch(at::Device device);

  /// `host_ms`: what the host took to queue the same call before, 0 where it is not known.
  void start(double host_ms);
  void stop();

  /// The calls since the last collect(); waits for the device.
  std::vector<Time> collect();

 private:
  using Clock = std::chrono::steady_clock;

  void record_event();
  void flush(int times);
  double time_flush();

  at::Device device_;
  at::Tensor overwritten_, read_, sum_;   // the flush's
  double flush_ms_ = 0;                   // of one overwriting
  std::vector<c10::Event> events_;        // accelerator: start, stop, start, stop ..
  std::vector<Clock::time_point> times_;  // the host's, likewise
};

}  // namespace strobe::bench
