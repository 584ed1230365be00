// Strided tensors in storage that notices what touches it: poison (NaN) everywhere but in the tensors' own elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "strobe/types.h"

namespace strobe::testing {

/// Bytes that start as 0xFF, which is a NaN in every type, with a margin on both sides. 16-byte aligned and no better.
class Storage {
 public:
  explicit Storage(int64_t bytes);

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  /// Margins included.
  const std::vector<std::byte>& bytes() const { return bytes_; }
  /// Declares bytes as a tensor's own.
  void own(int64_t begin, int64_t end);
  /// Whether all other bytes, margins included, are what they were at the start.
  bool untouched() const;

 private:
  std::vector<std::byte> bytes_;
  std::vector<bool> owned_;
  std::byte* data_;
};

/// [batch, rows, heads, head_dim] with strides in elements; varlen tensors have batch 1.
struct Tensor {
  std::shared_ptr<Storage> storage;
  DType dtype = DType::kFloat32;
  int64_t begin = 0;  // the element of the storage that is [0, 0, 0, 0]
  int64_t batch = 0, rows = 0, heads = 0, head_dim = 0;
  int64_t batch_stride = 0, row_stride = 0, head_stride = 0;

  void* data() const;
  int64_t index(int64_t b, int64_t i, int64_t h) const { return b * batch_stride + i * row_stride + h * head_stride; }
  double get(int64_t b, int64_t i, int64_t h, int64_t d) const;
  void set(int64_t b, int64_t i, int64_t h, int64_t d, double value) const;
  /// Sets row i of every head.
  void set_row(int64_t b, int64_t i, double value) const;
  /// Declares the elements as the tensor's own.
  void own() const;
  /// All elements in the order [batch, rows, heads, head_dim].
  std::vector<double> compact() const;
};

/// A workspace as a kernel may get it: aligned as promised, full of NaN, and watched for writes behind its end.
class Workspace {
 public:
  explicit Workspace(std::size_t size);

  void* data() { return begin_; }
  /// Margins included.
  const std::vector<std::byte>& bytes() const { return bytes_; }
  bool untouched_behind() const;

 private:
  std::vector<std::byte> bytes_;
  std::byte* begin_;
  std::size_t size_;
};

}  // namespace strobe::testing
