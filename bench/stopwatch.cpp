#include "bench/stopwatch.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cmath>

#include "train/device.h"

namespace strobe::bench {
namespace {

constexpr int64_t kFlushBytes = 256 << 20;  // an H200's L2 holds 50 MB, a B200's 126 MB
// Four writes of 256 MiB keep an H200 busy for a quarter of a millisecond, longer than the host takes to queue the
// fifteen launches of a materialised backward.
constexpr int kLeastFlushes = 4;
constexpr int kMostFlushes = 256;
constexpr double kMargin = 2.0;  // the host's times vary

}  // namespace

int flushes_to_cover(double host_ms, double flush_ms) {
  if (!(flush_ms > 0)) return kLeastFlushes;
  const double needed = std::ceil(kMargin * host_ms / flush_ms);
  return static_cast<int>(std::clamp<double>(needed, kLeastFlushes, kMostFlushes));
}

Stopwatch::Stopwatch(at::Device device) : device_(device) {
  if (device.is_cpu()) return;
  const auto options = at::TensorOptions().device(device);
  overwritten_ = at::empty({kFlushBytes}, options.dtype(at::kByte));
  read_ = at::zeros({kFlushBytes / int64_t{sizeof(float)}}, options.dtype(at::kFloat));
  sum_ = at::empty({}, options.dtype(at::kFloat));
  flush_ms_ = time_flush();
}

double Stopwatch::time_flush() {
  flush(kLeastFlushes);  // warm-up
  record_event();
  for (int i = 0; i < kLeastFlushes; ++i) overwritten_.zero_();
  record_event();
  train::synchronize(device_);
  const double ms = events_[0].elapsedTime(events_[1]) / kLeastFlushes;
  events_.clear();
  return ms;
}

void Stopwatch::flush(int times) {
  for (int i = 0; i < times; ++i) overwritten_.zero_();
  at::sum_out(sum_, read_, at::IntArrayRef({0}));
}

void Stopwatch::record_event() {
  const c10::impl::VirtualGuardImpl guard(device_.type());
  events_.emplace_back(device_.type(), c10::EventFlag::BACKEND_DEFAULT);  // the flag with timing
  events_.back().record(guard.getStream(device_));
}

void Stopwatch::start(double host_ms) {
  if (!device_.is_cpu()) {
    flush(flushes_to_cover(host_ms, flush_ms_));
    record_event();
  }
  times_.push_back(Clock::now());
}

void Stopwatch::stop() {
  times_.push_back(Clock::now());
  if (!device_.is_cpu()) record_event();
}

std::vector<Stopwatch::Time> Stopwatch::collect() {
  train::synchronize(device_);
  std::vector<Time> result;
  for (std::size_t i = 0; i + 1 < times_.size(); i += 2) {
    const double host_ms = std::chrono::duration<double, std::milli>(times_[i + 1] - times_[i]).count();
    result.push_back({device_.is_cpu() ? host_ms : events_[i].elapsedTime(events_[i + 1]), host_ms});
  }
  times_.clear();
  events_.clear();
  return result;
}

}  // namespace strobe::bench
