#include "bench/memory.h"

#include <ATen/Context.h>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <mutex>
#include <optional>
#include <string>

#include "train/device.h"

namespace strobe::bench {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

int64_t device_bytes(at::Device device) {
  constexpr auto kAggregate = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return c10::getDeviceAllocator(device.type())->getDeviceStats(device.index()).allocated_bytes[kAggregate].current;
}

/// The number after `key` in a file of /proc, in bytes where the file says kB.
std::optional<uint64_t> proc_bytes(const char* file, const std::string& key) {
  std::ifstream in(file);
  std::string word;
  uint64_t kib = 0;
  while (in >> word) {
    if (word == key && in >> kib) return kib * 1024;
  }
  return std::nullopt;
}

}  // namespace

/// Hears of each allocation of the CPU's allocator, by the hook that torch's memory profiler uses.
class PeakMemory::CpuRecord : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t alloc_size, size_t, size_t, at::Device) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_ += alloc_size;
    peak_ = std::max(peak_, held_);
  }
  bool memoryProfilingEnabled() const override { return true; }

  void reset() {
    const std::lock_guard<std::mutex> lock(mutex_);
    peak_ = held_;
  }
  int64_t peak() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return peak_;
  }

 private:
  mutable std::mutex mutex_;
  int64_t held_ = 0, peak_ = 0;
};

class PeakMemory::CpuScope {
 public:
  explicit CpuScope(std::shared_ptr<c10::DebugInfoBase> record)
      : guard_(c10::DebugInfoKind::PROFILER_STATE, std::move(record)) {}

 private:
  c10::DebugInfoGuard guard_;
};

PeakMemory::PeakMemory(at::Device device) : device_(device) {
  if (device_.is_cpu()) {
    record_ = std::make_shared<CpuRecord>();
    scope_ = std::make_unique<CpuScope>(record_);
  } else {
    at::globalContext().lazyInitDevice(device_.type());  // before its first tensor the allocator knows no device
    baseline_ = device_bytes(device_);
    reset();
  }
}

PeakMemory::~PeakMemory() = default;

void PeakMemory::reset() {
  if (device_.is_cpu()) {
    record_->reset();
  } else {
    train::reset_peak_memory(device_);
  }
}

double PeakMemory::mib() const {
  const int64_t peak = device_.is_cpu() ? record_->peak() : train::peak_memory(device_) - baseline_;
  return static_cast<double>(peak) / kMiB;
}

MemoryLimit::MemoryLimit() {
  const auto free = proc_bytes("/proc/meminfo", "MemAvailable:");
  const auto used = proc_bytes("/proc/self/status", "VmSize:");
  rlimit limit{};
  if (!free || !used || ::getrlimit(RLIMIT_AS, &limit) != 0) return;
  previous_ = limit.rlim_cur;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_cur, *used + *free);
  set_ = ::setrlimit(RLIMIT_AS, &limit) == 0;
}

MemoryLimit::~MemoryLimit() {
  rlimit limit{};
  if (!set_ || ::getrlimit(RLIMIT_AS, &limit) != 0) return;
  limit.rlim_cur = previous_;
  ::setrlimit(RLIMIT_AS, &limit);
}

}  // namespace strobe::bench
