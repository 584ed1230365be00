#include "src/attention/cuda/sm90/tensor_map.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <string>

#include "strobe/types.h"

namespace strobe::cuda {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/// The driver's, which is not linked.
Encode encode() {
  static const Encode kEncode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    const cudaError_t status =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
    if (status != cudaSuccess || found != cudaDriverEntryPointSuccess) {
      throw Error("attention_backward: expected a driver with cuTensorMapEncodeTiled, got none");
    }
    return reinterpret_cast<Encode>(function);
  }();
  return kEncode;
}

}  // namespace

TensorMap tensor_map(const Strided& tensor, int64_t batch, int rows, int heads, int columns, int box_rows,
                     int box_columns) {
  constexpr cuuint64_t kElement = 2;
  const auto size = [](int64_t n) { return static_cast<cuuint64_t>(n); };
  // A dimension of one may have any stride in the call, which the driver would check.
  const auto stride = [&](int64_t count, int64_t elements) {
    return count > 1 ? size(elements) * kElement : size(columns) * kElement;
  };
  const cuuint64_t sizes[] = {size(columns), size(rows), size(heads), size(batch)};
  const cuuint64_t strides[] = {stride(rows, tensor.row_stride), stride(heads, tensor.head_stride),
                                stride(batch, tensor.batch_stride)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(box_columns), static_cast<cuuint32_t>(box_rows), 1, 1};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  alignas(64) CUtensorMap map;
  const CUresult status = encode()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 4, tensor.data, sizes, strides, box, steps,
                                   CU_TENSOR_MAP_INTERLEAVE_NONE,
                                   box_columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_32B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw Error("attention_backward: cuTensorMapEncodeTiled: expected success, got " + std::to_string(status));
  }
  TensorMap result;
  static_assert(sizeof(result) == sizeof(map));
  std::memcpy(&result, &map, sizeof(map));
  return result;
}

}  // namespace strobe::cuda
