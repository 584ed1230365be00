// Where the operands of a wgmma stand in shared memory. PTX ISA 9.0, "Asynchronous Warpgroup Level Matrix
// Instructions": "Matrix Descriptor", "Strides", "Swizzling Modes".
#pragma once

#include "src/attention/cuda/common/tile.cuh"

namespace strobe::cuda {

inline constexpr int kWarpgroup = 128;  // threads

/// A tile as panels of 64 columns, one behind the other, each of kRows rows of 128 bytes in the layout of
/// TileLayout<64>: the 128-byte swizzle, where the tile begins at a multiple of kAlignment bytes.
template <int kColumns, int kRows>
struct PanelLayout {
  static constexpr int kAlignment = 1024;
  static constexpr int kPanelColumns = 64, kPanelBytes = kRows * 128;
  static_assert(kColumns % kPanelColumns == 0 && kPanelBytes % kAlignment == 0);
  static constexpr int kChunks = kColumns / kChunkElements;
  static constexpr int kBytes = kColumns / kPanelColumns * kPanelBytes;

  static __device__ constexpr uint32_t offset(int row, int chunk) {
    return static_cast<uint32_t>(chunk / 8 * kPanelBytes) + TileLayout<kPanelColumns>::offset(row, chunk % 8);
  }
  /// To a column, a multiple of 16, of an operand that is k_is_column.
  static constexpr int column_bytes(int column) {
    return column / kPanelColumns * kPanelBytes + column % kPanelColumns * 2;
  }
  /// To a row, a multiple of 8.
  static constexpr int row_bytes(int row) { return row * 128; }
};

/// The matrix descriptor of an operand: bits 0-13 start address, 16-29 leading dimension byte offset, 32-45 stride
/// dimension byte offset (of each bits 4-17), 49-51 base offset (0: 8 rows begin at a multiple of 1024 bytes), 62-63
/// swizzling mode (1: 128 bytes).
class WgmmaOperand {
 public:
  /// A[m][k] as it is or B[k][n] stored as [n][k] ("K-major"): a step of 16 k lies in one panel, 8 rows are 1024 bytes
  /// behind the 8 before, nothing is read at the leading offset.
  static __device__ WgmmaOperand k_is_column(uint32_t tile) { return {tile, 16}; }
  /// B[k][n] as it is or A[m][k] stored as [k][m] ("MN-major", transposed): of 16 rows, the second 8 are 1024 bytes
  /// behind the first, and the next 64 columns panel_bytes further.
  static __device__ WgmmaOperand k_is_row(uint32_t tile, int panel_bytes) { return {tile, panel_bytes}; }

  /// Of the operand that begins `bytes` further, a multiple of 16.
  __device__ uint64_t at(int bytes) const { return descriptor_ + static_cast<uint64_t>(bytes >> 4); }

 private:
  __device__ WgmmaOperand(uint32_t tile, int leading)
      : descriptor_(uint64_t{(tile & 0x3FFFF) >> 4} | static_cast<uint64_t>(leading >> 4) << 16 |
                    uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62) {}

  uint64_t descriptor_;
};

}  // namespace strobe::cuda
