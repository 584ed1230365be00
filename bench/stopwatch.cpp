#include "bench/stopwatch.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "train/device.h"

namespace strobe::bench {
namespace {

constexpr int64_t kFlushBytes = 256 << 20;  // an H200's L2 holds 50 MB, a B200's 126 MB
// Four writes of 256 MiB keep an H200 busy for a quarter of a millisecond, longer than the host takes to queue the
// fifteen launches of a materialised backward.
constexpr int kFlushes = 4;

}  // namespace

Stopwatch::Stopwatch(at::Device device) : device_(device) {
  if (!device.is_cpu()) flush_ = at::empty({kFlushBytes}, at::TensorOptions().dtype(at::kByte).device(device));
}

void Stopwatch::mark() {
  if (device_.is_cpu()) {
    times_.push_back(Clock::now());
    return;
  }
  const c10::impl::VirtualGuardImpl guard(device_.type());
  events_.emplace_back(device_.type(), c10::EventFlag::BACKEND_DEFAULT);  // the flag with timing
  events_.back().record(guard.getStream(device_));
}

void Stopwatch::start() {
  if (flush_.defined()) {
    for (int i = 0; i < kFlushes; ++i) flush_.zero_();
  }
  mark();
}

void Stopwatch::stop() { mark(); }

std::vector<double> Stopwatch::collect() {
  train::synchronize(device_);
  std::vector<double> result;
  for (std::size_t i = 0; i + 1 < times_.size(); i += 2) {
    result.push_back(std::chrono::duration<double, std::milli>(times_[i + 1] - times_[i]).count());
  }
  for (std::size_t i = 0; i + 1 < events_.size(); i += 2) result.push_back(events_[i].elapsedTime(events_[i + 1]));
  times_.clear();
  events_.clear();
  return result;
}

}  // namespace strobe::bench
