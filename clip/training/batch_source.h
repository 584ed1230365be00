// Where a training or a validation has its batches from.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace strobe::clip {

/// One process's batch on the device that computes.
struct Batch {
  at::Tensor images;             // [B, 3, R, R]
  at::Tensor texts;              // int64 [B, L], right-padded with 0
  at::Tensor lengths;            // int64 [B], on the CPU: tokens of each text
  std::vector<int64_t> samples;  // [B], the numbers of the pairs
};

class BatchSource {
 public:
  virtual ~BatchSource() = default;

  /// Begins the epoch (from 1). Returns how many batches this process has, as many as every other.
  virtual int64_t begin_epoch(int64_t epoch) = 0;

  /// Batch `index` of the present epoch. The first may be any; cheap where the others follow in order.
  virtual Batch batch(int64_t index) = 0;

  virtual int64_t samples_per_epoch() const = 0;  // of all processes
  virtual int64_t skipped() const = 0;            // samples that could not be read, so far in this epoch
};

}  // namespace strobe::clip
