// A warp takes 256 columns of a row, a thread 8 of them for all its rows, so the bias and its gradient stay in
// registers.
#include <algorithm>

#include "src/pointwise/cuda/column_sums.cuh"
#include "src/pointwise/cuda/launch.h"
#include "src/pointwise/cuda/vector.cuh"

namespace strobe::pointwise {
namespace {

constexpr int kWarp = 32, kWarps = 8;
constexpr int kRows = 4;  // of a warp at a time, so that their loads are in flight together
constexpr int64_t kBlockColumns = kWarp * kVector, kBlockRows = kWarps * kRows;
constexpr int64_t kBackwardBlocks = 792;  // about, at most: two times 3 on each of 132 multiprocessors
constexpr int kForwardSteps = 2;          // of a block: bias and addresses are computed once
constexpr float kQuickSlope = 1.702f, kInverseSqrt2 = 0.70710678118654752f, kInverseSqrt2Pi = 0.39894228040143268f;

template <Activation kActivation>
__device__ float value(float x) {
  if constexpr (kActivation == Activation::kQuickGelu) return __fdividef(x, 1.0f + __expf(-kQuickSlope * x));
  return 0.5f * x * (1.0f + erff(x * kInverseSqrt2));
}

template <Activation kActivation>
__device__ float slope(float x) {
  if constexpr (kActivation == Activation::kQuickGelu) {
    const float sigmoid = __fdividef(1.0f, 1.0f + __expf(-kQuickSlope * x));
    return sigmoid * (1.0f + kQuickSlope * x * (1.0f - sigmoid));
  }
  return 0.5f * (1.0f + erff(x * kInverseSqrt2)) + x * kInverseSqrt2Pi * __expf(-0.5f * x * x);
}

/// Calls step(row) for the first of each group of rows that this thread takes: row, row + kWarps, ... kRows of them.
template <class Step>
__device__ void walk_rows(const PointwiseCall& call, const Step& step) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kBlockRows + threadIdx.y;
  for (int64_t row = first_row; row < call.rows; row += static_cast<int64_t>(gridDim.y) * kBlockRows) step(row);
}

template <class T, Activation kActivation>
__global__ void __launch_bounds__(kWarp* kWarps) forward(ActivationForward p) {
  const int64_t width = p.call.width;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kBlockColumns + threadIdx.x * kVector;
  if (column >= width) return;
  const auto* input = static_cast<const T*>(p.input);
  auto* out = static_cast<T*>(p.out);
  const Floats bias = load_floats(p.bias + column);
  walk_rows(p.call, [&](int64_t row) {
    Packed<T> x[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (row + r * kWarps < p.call.rows) x[r] = load(input + (row + r * kWarps) * width + column);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (row + r * kWarps >= p.call.rows) break;
      Floats xs = unpack(x[r]);
#pragma unroll
      for (int i = 0; i < kVector; ++i) xs.v[i] = value<kActivation>(xs.v[i] + bias.v[i]);
      store(out + (row + r * kWarps) * width + column, pack<T>(xs));
    }
  });
}

template <class T, Activation kActivation>
__global__ void __launch_bounds__(kWarp* kWarps, 3) backward(ActivationBackward p) {
  __shared__ Floats shared[kWarps][kWarp];
  const int64_t width = p.call.width;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kBlockColumns + threadIdx.x * kVector;
  const auto* input = static_cast<const T*>(p.input);
  const auto* grad_out = static_cast<const T*>(p.grad_out);
  auto* grad_input = static_cast<T*>(p.grad_input);
  Floats sum;
  if (column < width) {
    const Floats bias = load_floats(p.bias + column);
    walk_rows(p.call, [&](int64_t row) {
      Packed<T> x[kRows], dy[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (row + r * kWarps >= p.call.rows) continue;
        x[r] = load(input + (row + r * kWarps) * width + column);
        dy[r] = load(grad_out + (row + r * kWarps) * width + column);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (row + r * kWarps >= p.call.rows) break;
        const Floats xs = unpack(x[r]);
        Floats dx = unpack(dy[r]);
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          dx.v[i] *= slope<kActivation>(xs.v[i] + bias.v[i]);
          sum.v[i] += dx.v[i];
        }
        store(grad_input + (row + r * kWarps) * width + column, pack<T>(dx));
      }
    });
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum.v[i] += shared[warp][threadIdx.x].v[i];
  }
  store_floats(p.workspace + static_cast<int64_t>(blockIdx.y) * width + column, sum);
}

dim3 grid(const PointwiseCall& call, int64_t most_rows) {
  const int64_t rows = std::min(ceil_div(call.rows, kBlockRows), most_rows);
  return {static_cast<unsigned>(ceil_div(call.width, kBlockColumns)), static_cast<unsigned>(rows)};
}

dim3 forward_grid(const PointwiseCall& call) {
  constexpr int64_t kMostRows = 65535;  // of a grid; the rest by more steps
  return grid(call, std::min(kMostRows, std::max<int64_t>(1, call.rows / (kForwardSteps * kBlockRows))));
}

dim3 backward_grid(const PointwiseCall& call) {
  return grid(call, std::max<int64_t>(1, kBackwardBlocks / ceil_div(call.width, kBlockColumns)));
}

/// body(T(), constant of the activation).
template <class Body>
void with_types(const PointwiseCall& call, Activation activation, const Body& body) {
  with_element(call, [&](auto element) {
    if (activation == Activation::kQuickGelu) {
      body(element, std::integral_constant<Activation, Activation::kQuickGelu>());
    } else {
      body(element, std::integral_constant<Activation, Activation::kGelu>());
    }
  });
}

}  // namespace
}  // namespace strobe::pointwise

namespace strobe {

using namespace pointwise;

void activation_forward(const ActivationForward& params) {
  check_call("activation_forward", params.call);
  if (params.call.rows == 0) return;
  with_types(params.call, params.activation, [&](auto element, auto activation) {
    forward<decltype(element), activation()>
        <<<forward_grid(params.call), dim3(kWarp, kWarps), 0, stream_of(params.call)>>>(params);
  });
  check_launch("activation_forward");
}

int64_t activation_workspace(const PointwiseCall& call) { return backward_grid(call).y * call.width; }

void activation_backward(const ActivationBackward& params) {
  check_call("activation_backward", params.call);
  const dim3 blocks = backward_grid(params.call);
  if (blocks.y > 0) {
    with_types(params.call, params.activation, [&](auto element, auto activation) {
      backward<decltype(element), activation()><<<blocks, dim3(kWarp, kWarps), 0, stream_of(params.call)>>>(params);
    });
  }
  start_add_parts(params.workspace, blocks.y, params.call.width, 1, {{params.grad_bias}}, stream_of(params.call));
  check_launch("activation_backward");
}

}  // namespace strobe
