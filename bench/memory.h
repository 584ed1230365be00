// How much memory a call takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

namespace strobe::bench {

/// The most bytes that torch's allocator of `device` has held at once since this object was made, beyond those it held
/// then. The same measure on every device: what a call takes from torch, results and workspaces included, but not what
/// a library keeps for itself beside torch's allocator (packing buffers of MKL and oneDNN, cuDNN's plans).
class PeakMemory {
 public:
  explicit PeakMemory(at::Device device);
  ~PeakMemory();
  PeakMemory(const PeakMemory&) = delete;
  PeakMemory& operator=(const PeakMemory&) = delete;

  /// Forgets the peak, but not what was held at the start.
  void reset();
  double mib() const;

 private:
  class CpuRecord;
  class CpuScope;

  at::Device device_;
  int64_t baseline_ = 0;
  std::shared_ptr<CpuRecord> record_;
  std::unique_ptr<CpuScope> scope_;
};

/// Makes allocations beyond the memory that is free now fail, while it lives, instead of waking the kernel's
/// out-of-memory killer: Linux promises memory that it does not have.
class MemoryLimit {
 public:
  MemoryLimit();
  ~MemoryLimit();
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  unsigned long previous_ = 0;
  bool set_ = false;
};

}  // namespace strobe::bench
