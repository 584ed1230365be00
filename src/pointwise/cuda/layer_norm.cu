// A block takes whole rows, kRows at a time, a thread 8 columns of each: its share of the parameters and of their
// gradients stays in registers while the block walks down the matrix.
#include <algorithm>

#include "src/pointwise/cuda/column_sums.cuh"
#include "src/pointwise/cuda/launch.h"
#include "src/pointwise/cuda/vector.cuh"

namespace strobe::pointwise {
namespace {

constexpr int kRows = 4;  // at a time, so that their loads are in flight together
constexpr int kMaxThreads = kLayerNormMaxWidth / kVector;
constexpr int kWarp = 32, kMaxWarps = kMaxThreads / kWarp;
constexpr int kMultiprocessors = 132;  // that the grids are made for; others run them too
constexpr int kSums = 3;               // weight, bias, input_bias

/// Sums of kCount values over the block, the same in every thread. Calls take turns with two halves of `shared`, so one
/// barrier each is enough.
template <int kCount>
__device__ void block_sums(float (&values)[kCount], float (&shared)[kCount][kMaxWarps]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) values[i] += __shfl_xor_sync(0xFFFFFFFFu, values[i], step);
  }
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  if (warps == 1) return;
  if (threadIdx.x % kWarp == 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) shared[i][threadIdx.x / kWarp] = values[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = 0.0f;
    for (int warp = 0; warp < warps; ++warp) values[i] += shared[i][warp];
  }
}

/// What does not change while a block walks: which columns are this thread's.
struct Place {
  int column;
  bool active;
  __device__ explicit Place(int64_t width)
      : column(static_cast<int>(threadIdx.x) * kVector), active(column < static_cast<int>(width)) {}
};

template <class T>
__global__ void __launch_bounds__(kMaxThreads, 2) forward(LayerNormForward p, uint32_t threshold) {
  __shared__ float shared[2][kRows][kMaxWarps];
  const int64_t width = p.call.width;
  const Place place(width);
  const auto* input = static_cast<const T*>(p.input);
  const auto* residual = static_cast<const T*>(p.residual);
  auto* sums = static_cast<T*>(p.sum);
  auto* out = static_cast<T*>(p.out);
  Floats weight, bias, input_bias;
  if (place.active) {
    weight = load_floats(p.weight + place.column);
    bias = load_floats(p.bias + place.column);
    if (p.input_bias != nullptr) input_bias = load_floats(p.input_bias + place.column);
  }
  const bool drops = p.rng_state != nullptr;
  const uint64_t seed = drops ? p.rng_state[0] : 0, offset = drops ? p.rng_state[1] : 0;
  const float inverse_width = 1.0f / static_cast<float>(width), eps = static_cast<float>(p.eps);

  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRows; first < p.call.rows;
       first += static_cast<int64_t>(gridDim.x) * kRows) {
    Packed<T> packed[kRows] = {}, added[kRows] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (!place.active || first + r >= p.call.rows) continue;
      const int64_t at = (first + r) * width + place.column;
      packed[r] = load(input + at);
      if (residual != nullptr) added[r] = load(residual + at);
    }
    float mean[kRows] = {}, square[kRows] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      Floats x = unpack(packed[r]);
#pragma unroll
      for (int i = 0; i < kVector; ++i) x.v[i] += input_bias.v[i];
      if (drops) apply_dropout(x, seed, offset, first + r, place.column, threshold);
      if (residual != nullptr) {
        const Floats y = unpack(added[r]);
#pragma unroll
        for (int i = 0; i < kVector; ++i) x.v[i] += y.v[i];
      }
      packed[r] = pack<T>(x);
      if (sums != nullptr && place.active && first + r < p.call.rows) {
        store(sums + (first + r) * width + place.column, packed[r]);
      }
      const Floats rounded = unpack(packed[r]);
      if (place.active) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) mean[r] += rounded.v[i];
      }
    }
    block_sums(mean, shared[0]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      mean[r] *= inverse_width;
      const Floats x = unpack(packed[r]);
      if (place.active) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) square[r] += (x.v[i] - mean[r]) * (x.v[i] - mean[r]);
      }
    }
    block_sums(square, shared[1]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r >= p.call.rows) break;
      const float rstd = rsqrtf(square[r] * inverse_width + eps);
      if (threadIdx.x == 0) {
        p.mean[first + r] = mean[r];
        p.rstd[first + r] = rstd;
      }
      if (!place.active) continue;
      Floats x = unpack(packed[r]);
#pragma unroll
      for (int i = 0; i < kVector; ++i) x.v[i] = (x.v[i] - mean[r]) * rstd * weight.v[i] + bias.v[i];
      store(out + (first + r) * width + place.column, pack<T>(x));
    }
  }
}

/// With xhat = (sum - mean) rstd and g = grad_out weight: grad_residual = rstd (g - mean(g) - xhat mean(g xhat)) +
/// grad_sum.
template <class T>
__global__ void __launch_bounds__(kMaxThreads) backward(LayerNormBackward p, uint32_t threshold) {
  __shared__ float shared[2][2 * kRows][kMaxWarps];
  const int64_t width = p.call.width;
  const Place place(width);
  const auto* sum = static_cast<const T*>(p.sum);
  const auto* grad_out = static_cast<const T*>(p.grad_out);
  const auto* grad_sum = static_cast<const T*>(p.grad_sum);
  auto* grad_residual = static_cast<T*>(p.grad_residual);
  auto* grad_input = static_cast<T*>(p.grad_input);
  Floats weight, grad_weight, grad_bias, grad_input_bias;
  if (place.active) weight = load_floats(p.weight + place.column);
  const bool drops = p.rng_state != nullptr;
  const uint64_t seed = drops ? p.rng_state[0] : 0, offset = drops ? p.rng_state[1] : 0;
  const float inverse_width = 1.0f / static_cast<float>(width);

  int turn = 0;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRows; first < p.call.rows;
       first += static_cast<int64_t>(gridDim.x) * kRows, turn ^= 1) {
    Packed<T> x[kRows] = {}, dy[kRows] = {}, extra[kRows] = {};
    float mean[kRows] = {}, rstd[kRows] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (!place.active || first + r >= p.call.rows) continue;
      const int64_t at = (first + r) * width + place.column;
      x[r] = load(sum + at);
      dy[r] = load(grad_out + at);
      if (grad_sum != nullptr) extra[r] = load(grad_sum + at);
      mean[r] = p.mean[first + r];
      rstd[r] = p.rstd[first + r];
    }
    float means[2 * kRows] = {};  // of g, then of g xhat
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const Floats xs = unpack(x[r]), dys = unpack(dy[r]);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float xhat = (xs.v[i] - mean[r]) * rstd[r], g = dys.v[i] * weight.v[i];
        means[r] += g;
        means[kRows + r] += g * xhat;
        grad_weight.v[i] += dys.v[i] * xhat;
        grad_bias.v[i] += dys.v[i];
      }
    }
    block_sums(means, shared[turn]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (!place.active || first + r >= p.call.rows) break;
      const int64_t at = (first + r) * width + place.column;
      const Floats xs = unpack(x[r]), dys = unpack(dy[r]);
      Floats dx = unpack(extra[r]);
      const float mean_g = means[r] * inverse_width, slope = means[kRows + r] * inverse_width;
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float xhat = (xs.v[i] - mean[r]) * rstd[r];
        dx.v[i] += rstd[r] * (dys.v[i] * weight.v[i] - mean_g - xhat * slope);
      }
      store(grad_residual + at, pack<T>(dx));
      if (grad_input != nullptr) {
        if (drops) apply_dropout(dx, seed, offset, first + r, place.column, threshold);
        store(grad_input + at, pack<T>(dx));
      }
#pragma unroll
      for (int i = 0; i < kVector; ++i) grad_input_bias.v[i] += dx.v[i];
    }
  }
  if (!place.active) return;
  float* part = p.workspace + static_cast<int64_t>(blockIdx.x) * kSums * width + place.column;
  store_floats(part, grad_weight);
  store_floats(part + width, grad_bias);
  store_floats(part + 2 * width, grad_input_bias);
}

int threads_for(int64_t width) { return static_cast<int>(ceil_div(width, kVector * kWarp)) * kWarp; }

/// Many, so that they end together, but with several steps each, so that loading the parameters counts little.
int64_t forward_blocks(const PointwiseCall& call) {
  const int64_t steps = ceil_div(call.rows, kRows);
  return std::min(steps, std::max<int64_t>(8 * kMultiprocessors, ceil_div(steps, 4)));
}

/// As many as run at once, since each leaves a part of the sums.
int64_t backward_blocks(const PointwiseCall& call) {
  const int64_t at_once = kMultiprocessors * (2 * kMaxThreads / threads_for(call.width));
  return std::min(ceil_div(call.rows, kRows), std::min<int64_t>(at_once, 5 * kMultiprocessors));
}

void check(const char* operation, const PointwiseCall& call) {
  check_call(operation, call);
  require(call.width <= kLayerNormMaxWidth, operation, "a width of at most 2048", call.width);
}

}  // namespace
}  // namespace strobe::pointwise

namespace strobe {

using namespace pointwise;

void layer_norm_forward(const LayerNormForward& params) {
  check("layer_norm_forward", params.call);
  if (params.call.rows == 0) return;
  const auto blocks = static_cast<unsigned>(forward_blocks(params.call));
  with_element(params.call, [&](auto element) {
    forward<decltype(element)><<<blocks, threads_for(params.call.width), 0, stream_of(params.call)>>>(
        params, dropout_threshold(params.dropout_p));
  });
  check_launch("layer_norm_forward");
}

int64_t layer_norm_workspace(const PointwiseCall& call) { return backward_blocks(call) * kSums * call.width; }

void layer_norm_backward(const LayerNormBackward& params) {
  check("layer_norm_backward", params.call);
  const int64_t blocks = backward_blocks(params.call), width = params.call.width;
  if (blocks > 0) {
    with_element(params.call, [&](auto element) {
      backward<decltype(element)><<<static_cast<unsigned>(blocks), threads_for(width), 0, stream_of(params.call)>>>(
          params, dropout_threshold(params.dropout_p));
    });
  }
  start_add_parts(params.workspace, blocks, width, kSums,
                  {{params.grad_weight, params.grad_bias, params.grad_input_bias}}, stream_of(params.call));
  check_launch("layer_norm_backward");
}

}  // namespace strobe
