// Descriptors of tensors for the copy engine of sm_90.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/attention/cuda/common/call.h"

namespace strobe::cuda {

/// As the driver encodes it.
struct alignas(64) TensorMap {
  std::byte bytes[128];
};

/// Of a [batch, rows, heads, columns] tensor of 16-bit elements in boxes of box_rows x box_columns of one head, whose
/// rows stand in shared memory as TileLayout<box_columns> has them (box_columns is 16 or 64). Throws strobe::Error.
TensorMap tensor_map(const Strided& tensor, int64_t batch, int rows, int heads, int columns, int box_rows,
                     int box_columns);

}  // namespace strobe::cuda
