// The end of a sum over rows: blocks have left their part of it in the workspace, in an order that is theirs alone, so
// that the result is the same in every run.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace strobe::pointwise {

/// Up to three sums that end in vectors of their own.
struct ColumnSums {
  float* out[3] = {};  // null: not wanted
};

constexpr int kSumColumns = 32, kSumRows = 16;

/// parts [blocks, sums, width] -> sums.out[blockIdx.y][width].
static __global__ void add_parts(const float* parts, int blocks, int width, ColumnSums sums) {
  __shared__ float shared[kSumRows][kSumColumns];
  const int column = static_cast<int>(blockIdx.x) * kSumColumns + static_cast<int>(threadIdx.x);
  float sum = 0.0f;
  if (column < width) {
    const int64_t stride = static_cast<int64_t>(gridDim.y) * width;
    const float* part = parts + static_cast<int64_t>(blockIdx.y) * width + column;
    for (int block = static_cast<int>(threadIdx.y); block < blocks; block += kSumRows) sum += part[block * stride];
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width || sums.out[blockIdx.y] == nullptr) return;
  sum = 0.0f;
#pragma unroll
  for (int row = 0; row < kSumRows; ++row) sum += shared[row][threadIdx.x];
  sums.out[blockIdx.y][column] = sum;
}

inline void start_add_parts(const float* parts, int64_t blocks, int64_t width, int count, const ColumnSums& sums,
                            cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((width + kSumColumns - 1) / kSumColumns), static_cast<unsigned>(count));
  add_parts<<<grid, dim3(kSumColumns, kSumRows), 0, stream>>>(parts, static_cast<int>(blocks), static_cast<int>(width),
                                                              sums);
}

}  // namespace strobe::pointwise
