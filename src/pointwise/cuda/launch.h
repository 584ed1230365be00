// What the kernels of this folder are started with.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <string>

#include "strobe/pointwise.h"

namespace strobe::pointwise {

inline void require(bool holds, const char* operation, const char* expected, int64_t found) {
  if (holds) return;
  throw Error(std::string(operation) + ": expected " + expected + ", found " + std::to_string(found));
}

inline void check_call(const char* operation, const PointwiseCall& call) {
  require(call.dtype != DType::kFloat32, operation, "float16 or bfloat16", static_cast<int64_t>(call.dtype));
  require(call.rows >= 0, operation, "at least 0 rows", call.rows);
  require(call.width > 0 && call.width % kPointwiseVector == 0, operation, "a width that is a multiple of 8",
          call.width);
}

inline void check_launch(const char* operation) {
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) throw Error(std::string(operation) + ": launch: " + cudaGetErrorString(status));
}

inline cudaStream_t stream_of(const PointwiseCall& call) { return static_cast<cudaStream_t>(call.stream); }

/// body(T()) with the element type of the call.
template <class Body>
void with_element(const PointwiseCall& call, const Body& body) {
  if (call.dtype == DType::kFloat16) {
    body(__half());
  } else {
    body(__nv_bfloat16());
  }
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace strobe::pointwise
