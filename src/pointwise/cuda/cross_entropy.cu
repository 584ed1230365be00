// A block takes a row: its threads keep the maximum, the sum of exponentials relative to it and the sum of what they
// have seen (Milakov & Gimelshein 2018, arXiv 1805.02867) and put them together at the end, in a fixed order.
#include "strobe/cross_entropy.h"

#include <cfloat>

#include "src/pointwise/cuda/launch.h"
#include "src/pointwise/cuda/vector.cuh"

namespace strobe::pointwise {
namespace {

constexpr int kThreads = 256, kWarp = 32, kWarps = kThreads / kWarp;

/// Of some logits: the sum of exp(x - max), and of x.
struct Summary {
  float max = -FLT_MAX;  // finite, so that a logit of -infinity adds exp(-infinity) and not NaN
  float exponentials = 0.0f;
  float values = 0.0f;
};

__device__ Summary merged(const Summary& a, const Summary& b) {
  const float max = fmaxf(a.max, b.max);
  return {max, a.exponentials * __expf(a.max - max) + b.exponentials * __expf(b.max - max), a.values + b.values};
}

__device__ void add(Summary& summary, const Floats& x) {
  float max = summary.max;
#pragma unroll
  for (int i = 0; i < kVector; ++i) max = fmaxf(max, x.v[i]);
  if (max > summary.max) {
    summary.exponentials *= __expf(summary.max - max);
    summary.max = max;
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    summary.exponentials += __expf(x.v[i] - max);
    summary.values += x.v[i];
  }
}

__device__ Summary of_warp(Summary summary) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    summary = merged(summary, {__shfl_xor_sync(0xFFFFFFFFu, summary.max, distance),
                               __shfl_xor_sync(0xFFFFFFFFu, summary.exponentials, distance),
                               __shfl_xor_sync(0xFFFFFFFFu, summary.values, distance)});
  }
  return summary;
}

/// For thread 0.
__device__ Summary of_block(const Summary& of_thread) {
  __shared__ Summary shared[kWarps];
  const Summary summary = of_warp(of_thread);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = summary;
  __syncthreads();
  Summary all = shared[0];
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kWarps; ++warp) all = merged(all, shared[warp]);
  }
  return all;
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward(CrossEntropyForward p) {
  const int64_t row = blockIdx.x;
  const T* logits = static_cast<const T*>(p.logits) + row * p.call.width;
  Summary summary;
  for (int64_t column = threadIdx.x * kVector; column < p.call.width; column += kThreads * kVector) {
    add(summary, unpack(load(logits + column)));
  }
  summary = of_block(summary);
  if (threadIdx.x != 0) return;
  const float lse = summary.max + logf(summary.exponentials);
  const int64_t target = p.targets.ids[row];
  const auto smoothing = static_cast<float>(p.targets.smoothing);
  float loss = 0.0f;
  if (target != p.targets.ignored) {
    const bool known = target >= 0 && target < p.call.width;
    const float chosen = known ? static_cast<float>(logits[target]) : nanf("");
    loss = lse - (1.0f - smoothing) * chosen;
    // Without smoothing a logit of -infinity must not meet the factor 0.
    if (smoothing > 0.0f) loss -= smoothing * (summary.values / static_cast<float>(p.call.width));
  }
  p.losses[row] = loss;
  p.lse[row] = lse;
}

template <class T>
__global__ void __launch_bounds__(kThreads) backward(CrossEntropyBackward p) {
  const int64_t row = blockIdx.x;
  const T* logits = static_cast<const T*>(p.logits) + row * p.call.width;
  T* gradient = static_cast<T*>(p.grad_logits) + row * p.call.width;
  const int64_t target = p.targets.ids[row];
  const bool ignored = target == p.targets.ignored;
  const auto smoothing = static_cast<float>(p.targets.smoothing);
  const float lse = p.lse[row], scale = *p.grad, everywhere = smoothing / static_cast<float>(p.call.width);
  for (int64_t column = threadIdx.x * kVector; column < p.call.width; column += kThreads * kVector) {
    Floats x;
    if (!ignored) {
      x = unpack(load(logits + column));
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float there = column + i == target ? 1.0f - smoothing : 0.0f;
        x.v[i] = scale * (__expf(x.v[i] - lse) - everywhere - there);
      }
    }
    store(gradient + column, pack<T>(x));
  }
}

template <class Params>
void check(const char* operation, const Params& p) {
  check_call(operation, p.call);
  require(p.call.rows <= INT32_MAX, operation, "at most 2147483647 rows", p.call.rows);
}

}  // namespace
}  // namespace strobe::pointwise

namespace strobe {

using namespace pointwise;

void cross_entropy_forward(const CrossEntropyForward& params) {
  check("cross_entropy_forward", params);
  if (params.call.rows == 0) return;
  with_element(params.call, [&](auto element) {
    forward<decltype(element)>
        <<<static_cast<unsigned>(params.call.rows), kThreads, 0, stream_of(params.call)>>>(params);
  });
  check_launch("cross_entropy_forward");
}

void cross_entropy_backward(const CrossEntropyBackward& params) {
  check("cross_entropy_backward", params);
  if (params.call.rows == 0) return;
  with_element(params.call, [&](auto element) {
    backward<decltype(element)>
        <<<static_cast<unsigned>(params.call.rows), kThreads, 0, stream_of(params.call)>>>(params);
  });
  check_launch("cross_entropy_backward");
}

}  // namespace strobe
