// A thread takes 8 columns and every so many rows: what belongs to a column stays in registers. Narrow matrices put
// several rows into a block at once.
#include <algorithm>

#include "src/pointwise/cuda/launch.h"
#include "src/pointwise/cuda/vector.cuh"
#include "strobe/batch_norm.h"

namespace strobe::pointwise {
namespace {

constexpr int kThreads = kBatchNormMaxWidth / kVector;
constexpr int kRows = 4;  // of a thread at a time, so that their loads are in flight together
constexpr int64_t kSumBlocks = 528, kMapBlocks = 1584;  // at most: 4 and 12 on each of 132 multiprocessors
constexpr int kSums = 2;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kSumBlocksAtOnce = 1;  // bf16 is converted by hand there, which takes more than the 128 registers of two
#else
constexpr int kSumBlocksAtOnce = 2;
#endif
constexpr int kFinishColumns = 32, kFinishRows = 32;

/// Where a thread stands in the matrix.
struct Place {
  int lanes, rows_a_step, column;
  int64_t first, step;
  bool active;

  __device__ explicit Place(int64_t width) {
    lanes = static_cast<int>(width) / kVector;
    rows_a_step = kThreads / lanes;
    const int own = static_cast<int>(threadIdx.x) / lanes;
    column = static_cast<int>(threadIdx.x) % lanes * kVector;
    active = own < rows_a_step;
    first = static_cast<int64_t>(blockIdx.x) * rows_a_step + own;
    step = static_cast<int64_t>(gridDim.x) * rows_a_step;
  }
};

/// Calls visit(row) for this thread's rows, kRows of them after load(row, slot) of each.
template <class Load, class Visit>
__device__ void walk(const Place& place, int64_t rows, const Load& load_row, const Visit& visit) {
  if (!place.active) return;
  for (int64_t row = place.first; row < rows; row += kRows * place.step) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (row + r * place.step < rows) load_row(row + r * place.step, r);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (row + r * place.step < rows) visit(row + r * place.step, r);
    }
  }
}

/// Leaves the block's sums of each column in parts [blocks, 2, width].
__device__ void leave_parts(const Place& place, int64_t width, const Floats& a, const Floats& b, float* parts) {
  __shared__ Floats shared[kSums][kThreads];
  shared[0][threadIdx.x] = a;
  shared[1][threadIdx.x] = b;
  __syncthreads();
  if (static_cast<int>(threadIdx.x) >= place.lanes) return;
  float* part = parts + static_cast<int64_t>(blockIdx.x) * kSums * width + place.column;
#pragma unroll
  for (int which = 0; which < kSums; ++which) {
    Floats sum = shared[which][threadIdx.x];
    for (int own = 1; own < place.rows_a_step; ++own) {
      const Floats& other = shared[which][threadIdx.x + own * place.lanes];
#pragma unroll
      for (int i = 0; i < kVector; ++i) sum.v[i] += other.v[i];
    }
    store_floats(part + which * width, sum);
  }
}

/// Sums of x - shift and of its square, where shift is the column's first element: the variance is no difference of
/// large numbers then, wherever the mean lies.
template <class T>
__global__ void __launch_bounds__(kThreads) statistics(BatchNormForward p) {
  const Place place(p.call.width);
  const auto* x = static_cast<const T*>(p.x);
  const Floats shift = unpack(load(x + place.column));
  Floats sum, square;
  Packed<T> loaded[kRows];
  walk(
      place, p.call.rows, [&](int64_t row, int r) { loaded[r] = load(x + row * p.call.width + place.column); },
      [&](int64_t, int r) {
        const Floats values = unpack(loaded[r]);
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          const float difference = values.v[i] - shift.v[i];
          sum.v[i] += difference;
          square.v[i] += difference * difference;
        }
      });
  leave_parts(place, p.call.width, sum, square, p.workspace);
}

/// Adds up a column's parts; the sums are those of thread row 0.
__device__ void add_column(const float* parts, int blocks, int64_t width, int column, float (&sums)[kSums]) {
  __shared__ float shared[kSums][kFinishRows][kFinishColumns];
#pragma unroll
  for (int which = 0; which < kSums; ++which) {
    float sum = 0.0f;
    if (column < width) {
      const float* part = parts + which * width + column;
      for (int block = static_cast<int>(threadIdx.y); block < blocks; block += kFinishRows) {
        sum += part[block * kSums * width];
      }
    }
    shared[which][threadIdx.y][threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.y != 0) return;
#pragma unroll
  for (int which = 0; which < kSums; ++which) {
    sums[which] = 0.0f;
    for (int row = 0; row < kFinishRows; ++row) sums[which] += shared[which][row][threadIdx.x];
  }
}

template <class T>
__global__ void finish_statistics(BatchNormForward p, int blocks) {
  const int column = static_cast<int>(blockIdx.x) * kFinishColumns + static_cast<int>(threadIdx.x);
  float sums[kSums];
  add_column(p.workspace, blocks, p.call.width, column, sums);
  if (threadIdx.y != 0 || column >= p.call.width) return;
  const auto rows = static_cast<float>(p.call.rows);
  const float shift = static_cast<float>(static_cast<const T*>(p.x)[column]);
  const float beyond = sums[0] / rows;
  const float mean = shift + beyond, variance = fmaxf(sums[1] / rows - beyond * beyond, 0.0f);
  p.mean[column] = mean;
  p.rstd[column] = rsqrtf(variance + static_cast<float>(p.eps));
  const auto momentum = static_cast<float>(p.momentum);
  p.running_mean[column] += momentum * (mean - p.running_mean[column]);
  p.running_var[column] += momentum * (variance * (rows / (rows - 1.0f)) - p.running_var[column]);
}

/// The columns' (x - mean) rstd weight + bias as x factor + constant.
struct Line {
  Floats factor, constant;
  __device__ Line(const float* mean, const float* rstd, const float* weight, const float* bias, int column) {
    const Floats m = load_floats(mean + column), s = load_floats(rstd + column), w = load_floats(weight + column);
    constant = load_floats(bias + column);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      factor.v[i] = s.v[i] * w.v[i];
      constant.v[i] -= m.v[i] * factor.v[i];
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads) normalize(BatchNormForward p) {
  const Place place(p.call.width);
  const Line line(p.mean, p.rstd, p.weight, p.bias, place.column);
  const auto* x = static_cast<const T*>(p.x);
  const auto* residual = static_cast<const T*>(p.residual);
  auto* out = static_cast<T*>(p.out);
  Packed<T> loaded[kRows], added[kRows];
  walk(
      place, p.call.rows,
      [&](int64_t row, int r) {
        loaded[r] = load(x + row * p.call.width + place.column);
        if (residual != nullptr) added[r] = load(residual + row * p.call.width + place.column);
      },
      [&](int64_t row, int r) {
        Floats values = unpack(loaded[r]);
#pragma unroll
        for (int i = 0; i < kVector; ++i) values.v[i] = values.v[i] * line.factor.v[i] + line.constant.v[i];
        if (residual != nullptr) {
          const Floats more = unpack(added[r]);
#pragma unroll
          for (int i = 0; i < kVector; ++i) values.v[i] += more.v[i];
        }
        if (p.rectifies) {
#pragma unroll
          for (int i = 0; i < kVector; ++i) values.v[i] = values.v[i] > 0.0f ? values.v[i] : 0.0f;
        }
        store(out + row * p.call.width + place.column, pack<T>(values));
      });
}

/// The gradient behind the rectifier.
template <class T>
__device__ Floats behind_rectifier(const BatchNormBackward& p, const Packed<T>& grad_out, const Floats& x,
                                   const Packed<T>& out, const Line& line) {
  Floats gradient = unpack(grad_out);
  if (!p.rectifies) return gradient;
  if (p.out != nullptr) {
    const Floats result = unpack(out);
#pragma unroll
    for (int i = 0; i < kVector; ++i) gradient.v[i] = result.v[i] > 0.0f ? gradient.v[i] : 0.0f;
  } else {
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      gradient.v[i] = x.v[i] * line.factor.v[i] + line.constant.v[i] > 0.0f ? gradient.v[i] : 0.0f;
    }
  }
  return gradient;
}

/// Sums of dz, the gradient behind the rectifier, and of dz (x - mean); dz is also the residual's gradient.
template <class T>
__global__ void __launch_bounds__(kThreads, kSumBlocksAtOnce) gradient_sums(BatchNormBackward p) {
  const Place place(p.call.width);
  const Line line(p.mean, p.rstd, p.weight, p.bias, place.column);
  const Floats mean = load_floats(p.mean + place.column);
  const auto *x = static_cast<const T*>(p.x), *out = static_cast<const T*>(p.out),
             *grad_out = static_cast<const T*>(p.grad_out);
  auto* grad_residual = static_cast<T*>(p.grad_residual);
  Floats sum, product;
  Packed<T> xs[kRows], gradients[kRows], outs[kRows];
  walk(
      place, p.call.rows,
      [&](int64_t row, int r) {
        const int64_t at = row * p.call.width + place.column;
        xs[r] = load(x + at);
        gradients[r] = load(grad_out + at);
        if (out != nullptr) outs[r] = load(out + at);
      },
      [&](int64_t row, int r) {
        const Floats values = unpack(xs[r]);
        const Floats dz = behind_rectifier(p, gradients[r], values, outs[r], line);
        if (grad_residual != nullptr) store(grad_residual + row * p.call.width + place.column, pack<T>(dz));
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          sum.v[i] += dz.v[i];
          product.v[i] += dz.v[i] * (values.v[i] - mean.v[i]);
        }
      });
  leave_parts(place, p.call.width, sum, product, p.workspace);
}

static __global__ void finish_gradients(BatchNormBackward p, int blocks) {
  const int column = static_cast<int>(blockIdx.x) * kFinishColumns + static_cast<int>(threadIdx.x);
  float sums[kSums];
  add_column(p.workspace, blocks, p.call.width, column, sums);
  if (threadIdx.y != 0 || column >= p.call.width) return;
  p.grad_bias[column] = sums[0];
  p.grad_weight[column] = sums[1] * p.rstd[column];
}

/// grad_x = weight rstd (dz - mean(dz) - xhat mean(dz xhat)) as dz factor + x slope + constant.
template <class T>
__global__ void __launch_bounds__(kThreads) input_gradient(BatchNormBackward p) {
  const Place place(p.call.width);
  const Line line(p.mean, p.rstd, p.weight, p.bias, place.column);
  Floats slope, constant;
  {
    const Floats mean = load_floats(p.mean + place.column), rstd = load_floats(p.rstd + place.column),
                 grad_weight = load_floats(p.grad_weight + place.column),
                 grad_bias = load_floats(p.grad_bias + place.column);
    const float share = 1.0f / static_cast<float>(p.call.rows);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      slope.v[i] = -line.factor.v[i] * rstd.v[i] * grad_weight.v[i] * share;
      constant.v[i] = -line.factor.v[i] * grad_bias.v[i] * share - mean.v[i] * slope.v[i];
    }
  }
  const auto* x = static_cast<const T*>(p.x);
  // Where there is a residual its gradient is dz.
  const auto* upstream = static_cast<const T*>(p.grad_residual != nullptr ? p.grad_residual : p.grad_out);
  auto* grad_x = static_cast<T*>(p.grad_x);
  BatchNormBackward mask = p;
  mask.rectifies = p.rectifies && p.grad_residual == nullptr;
  mask.out = nullptr;
  Packed<T> xs[kRows], gradients[kRows];
  walk(
      place, p.call.rows,
      [&](int64_t row, int r) {
        const int64_t at = row * p.call.width + place.column;
        xs[r] = load(x + at);
        gradients[r] = load(upstream + at);
      },
      [&](int64_t row, int r) {
        const Floats values = unpack(xs[r]);
        Floats dx = behind_rectifier(mask, gradients[r], values, xs[r], line);
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          dx.v[i] = dx.v[i] * line.factor.v[i] + values.v[i] * slope.v[i] + constant.v[i];
        }
        store(grad_x + row * p.call.width + place.column, pack<T>(dx));
      });
}

unsigned blocks_for(const PointwiseCall& call, int64_t most) {
  const int64_t rows_a_step = kThreads / (call.width / kVector);
  return static_cast<unsigned>(std::min(most, ceil_div(call.rows, rows_a_step * kRows)));
}

unsigned finish_blocks(const PointwiseCall& call) {
  return static_cast<unsigned>(ceil_div(call.width, kFinishColumns));
}

void check(const char* operation, const PointwiseCall& call) {
  check_call(operation, call);
  require(call.width <= kBatchNormMaxWidth, operation, "a width of at most 2048", call.width);
  require(call.rows > 1, operation, "more than 1 row", call.rows);
}

}  // namespace
}  // namespace strobe::pointwise

namespace strobe {

using namespace pointwise;

int64_t batch_norm_workspace(const PointwiseCall& call) { return blocks_for(call, kSumBlocks) * kSums * call.width; }

void batch_norm_forward(const BatchNormForward& params) {
  const PointwiseCall& call = params.call;
  check("batch_norm_forward", call);
  const unsigned blocks = blocks_for(call, kSumBlocks);
  with_element(call, [&](auto element) {
    using T = decltype(element);
    statistics<T><<<blocks, kThreads, 0, stream_of(call)>>>(params);
    finish_statistics<T><<<finish_blocks(call), dim3(kFinishColumns, kFinishRows), 0, stream_of(call)>>>(
        params, static_cast<int>(blocks));
    normalize<T><<<blocks_for(call, kMapBlocks), kThreads, 0, stream_of(call)>>>(params);
  });
  check_launch("batch_norm_forward");
}

void batch_norm_backward(const BatchNormBackward& params) {
  const PointwiseCall& call = params.call;
  check("batch_norm_backward", call);
  const unsigned blocks = blocks_for(call, kSumBlocks);
  with_element(call, [&](auto element) {
    using T = decltype(element);
    gradient_sums<T><<<blocks, kThreads, 0, stream_of(call)>>>(params);
    finish_gradients<<<finish_blocks(call), dim3(kFinishColumns, kFinishRows), 0, stream_of(call)>>>(
        params, static_cast<int>(blocks));
    input_gradient<T><<<blocks_for(call, kMapBlocks), kThreads, 0, stream_of(call)>>>(params);
  });
  check_launch("batch_norm_backward");
}

}  // namespace strobe
