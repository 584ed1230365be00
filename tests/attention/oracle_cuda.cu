// Compiled without contraction of products and sums: those of a row are then the CPU's bit by bit.
#include "tests/attention/oracle_cuda.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "src/attention/reference_head.h"

namespace strobe::testing {
namespace {

using reference::Arithmetic;
using reference::Range;
using reference::Sequence;
using reference::Size;

constexpr int kThreads = 256;

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(status));
}

/// Of device memory.
template <class T>
class Array {
 public:
  explicit Array(int64_t count) : count_(count) {
    check(cudaMalloc(&data_, std::max<int64_t>(count, 1) * sizeof(T)), "cudaMalloc");
    check(cudaMemset(data_, 0, count * sizeof(T)), "cudaMemset");
  }
  explicit Array(const std::vector<T>& values) : Array(static_cast<int64_t>(values.size())) {
    check(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~Array() { cudaFree(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T* data() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> result(count_);
    check(cudaMemcpy(result.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return result;
  }

 private:
  int64_t count_;
  T* data_ = nullptr;
};

struct DeviceExact {
  using Number = double;
  static __device__ double round(DType, double value) { return value; }
};

struct DevicePlain {
  using Number = float;
  static __device__ float round(DType dtype, float value) {
    if (dtype == DType::kFloat32) return value;
    return dtype == DType::kBFloat16 ? __bfloat162float(__float2bfloat16_rn(value))
                                     : __half2float(__float2half_rn(value));
  }
};

/// One query head of one sequence as the kernels see it: compact matrices, [rows, columns] each.
template <class Number>
struct HeadData {
  DType dtype;
  int64_t rows, keys, head_dim;
  Number scale;
  const Range* ranges;  // of keys, for each row
  const Number *q, *k, *v, *grad_out;
  const Size *q_sizes, *k_sizes, *v_sizes, *grad_out_sizes;
  uint64_t seed, offset, head_index;
  uint32_t threshold;
  Number *scores, *probabilities, *grad_scores;  // [rows, keys]
  double *lse, *mean_score, *delta_magnitude;    // [rows]
  Number *delta, *out, *grad_q;
  Number *grad_k, *grad_v;  // sums over the group
  double *score_magnitude, *out_magnitude, *q_magnitude;
  double *k_magnitude, *v_magnitude;  // sums over the group

  __device__ Number keep(int64_t i, int64_t j) const {
    if (threshold == 65536) return 1;
    return dropout_keeps(seed, offset, head_index, i, j, threshold) ? static_cast<Number>(dropout_scale(threshold)) : 0;
  }
  /// reference_head.h: Head::sensitivity.
  __device__ double sensitivity(int64_t i, int64_t j) const {
    const double p = static_cast<double>(probabilities[i * keys + j]);
    const double result = 1 + mean_score[i] + (1 - 2 * p) * fabs(static_cast<double>(scores[i * keys + j]));
    return isfinite(result) ? result : 1;
  }
};

template <class Policy, class Number>
__device__ Number dropped(const HeadData<Number>& h, int64_t i, int64_t j) {
  const Number p = h.probabilities[i * h.keys + j];
  return h.threshold == 65536 ? p : Policy::round(h.dtype, p * h.keep(i, j));
}

template <class Number>
__device__ Number dot(const Number* a, const Number* b, int64_t count) {
  Number sum = 0;
  for (int64_t d = 0; d < count; ++d) sum += a[d] * b[d];
  return sum;
}

/// Calls body(row, column) in one thread for each element of a matrix.
template <class Body>
__global__ void for_each_element(int64_t rows, int64_t columns, Body body) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (e < rows * columns) body(e / columns, e % columns);
}

template <class Body>
void launch(int64_t rows, int64_t columns, const Body& body) {
  const int64_t blocks = (rows * columns + kThreads - 1) / kThreads;
  if (blocks == 0) return;
  for_each_element<<<static_cast<unsigned>(blocks), kThreads>>>(rows, columns, body);
  check(cudaGetLastError(), "launch");
}

template <class Policy, class Number>
struct Scores {
  HeadData<Number> h;
  __device__ void operator()(int64_t i, int64_t j) const {
    if (j < h.ranges[i].begin || j >= h.ranges[i].end) return;
    const Number s = dot(h.q + i * h.head_dim, h.k + j * h.head_dim, h.head_dim) * h.scale;
    h.scores[i * h.keys + j] = Policy::round(h.dtype, s);
  }
};

/// In the order of the keys, one thread a row.
template <class Policy, class Number>
struct Softmax {
  HeadData<Number> h;
  __device__ void operator()(int64_t i, int64_t) const {
    const Range range = h.ranges[i];
    const Number* s = h.scores + i * h.keys;
    Number* p = h.probabilities + i * h.keys;
    h.lse[i] = -INFINITY;
    h.mean_score[i] = 0;
    if (range.begin >= range.end) return;
    Number maximum = -INFINITY, sum = 0;
    for (int64_t j = range.begin; j < range.end; ++j) {
      if (!(s[j] <= maximum)) maximum = s[j];
    }
    for (int64_t j = range.begin; j < range.end; ++j) sum += p[j] = exp(s[j] - maximum);
    const double norm = static_cast<double>(h.scale) * h.q_sizes[i].norm;
    double mean = 0, magnitude = 0;
    for (int64_t j = range.begin; j < range.end; ++j) {
      p[j] = Policy::round(h.dtype, p[j] / sum);
      mean += fabs(static_cast<double>(p[j]) * static_cast<double>(s[j]));
      magnitude = fmax(magnitude, norm * h.k_sizes[j].norm);
    }
    h.lse[i] = static_cast<double>(maximum + log(sum));
    h.mean_score[i] = mean;
    h.score_magnitude[i] = magnitude;
  }
};

template <class Policy, class Number>
struct Out {
  HeadData<Number> h;
  __device__ void operator()(int64_t i, int64_t d) const {
    Number sum = 0;
    double magnitude = 0;
    for (int64_t j = h.ranges[i].begin; j < h.ranges[i].end; ++j) {
      const Number p = dropped<Policy>(h, i, j);
      sum += p * h.v[j * h.head_dim + d];
      if (d == 0) magnitude += static_cast<double>(p) * h.sensitivity(i, j) * h.v_sizes[j].largest;
    }
    h.out[i * h.head_dim + d] = Policy::round(h.dtype, sum);
    if (d == 0) h.out_magnitude[i] = magnitude;
  }
};

/// delta - dLSE, and the magnitude of delta.
template <class Policy, class Number>
struct Delta {
  HeadData<Number> h;
  const float* grad_lse;
  __device__ void operator()(int64_t i, int64_t) const {
    h.delta[i] = dot(h.grad_out + i * h.head_dim, h.out + i * h.head_dim, h.head_dim);
    if (grad_lse != nullptr) h.delta[i] -= grad_lse[i];
    double magnitude = 0;
    for (int64_t j = h.ranges[i].begin; j < h.ranges[i].end; ++j) {
      magnitude += static_cast<double>(dropped<Policy>(h, i, j)) * h.sensitivity(i, j) * h.grad_out_sizes[i].norm *
                   h.v_sizes[j].norm;
    }
    h.delta_magnitude[i] = magnitude;
  }
};

template <class Policy, class Number>
struct GradScores {
  HeadData<Number> h;
  __device__ void operator()(int64_t i, int64_t j) const {
    if (j < h.ranges[i].begin || j >= h.ranges[i].end) return;
    const int64_t d = h.head_dim;
    const Number grad_p = Policy::round(h.dtype, dot(h.grad_out + i * d, h.v + j * d, d)) * h.keep(i, j);
    h.grad_scores[i * h.keys + j] = Policy::round(h.dtype, h.probabilities[i * h.keys + j] * (grad_p - h.delta[i]));
  }
};

/// What the magnitudes of dQ and dK are sums of.
template <class Number>
__device__ double grad_score_magnitude(const HeadData<Number>& h, int64_t i, int64_t j) {
  const double grad_p = static_cast<double>(h.keep(i, j)) * h.grad_out_sizes[i].norm * h.v_sizes[j].norm;
  return static_cast<double>(h.probabilities[i * h.keys + j]) * h.sensitivity(i, j) * (grad_p + h.delta_magnitude[i]) *
         static_cast<double>(h.scale);
}

template <class Policy, class Number>
struct GradQuery {
  HeadData<Number> h;
  __device__ void operator()(int64_t i, int64_t d) const {
    Number sum = 0;
    double magnitude = 0;
    for (int64_t j = h.ranges[i].begin; j < h.ranges[i].end; ++j) {
      sum += h.grad_scores[i * h.keys + j] * h.scale * h.k[j * h.head_dim + d];
      if (d == 0) magnitude += grad_score_magnitude(h, i, j) * h.k_sizes[j].largest;
    }
    h.grad_q[i * h.head_dim + d] = Policy::round(h.dtype, sum);
    if (d == 0) h.q_magnitude[i] = magnitude;
  }
};

template <class Policy, class Number>
struct GradKeyValue {
  HeadData<Number> h;
  __device__ void operator()(int64_t j, int64_t d) const {
    Number grad_k = h.grad_k[j * h.head_dim + d], grad_v = h.grad_v[j * h.head_dim + d];
    double k_magnitude = 0, v_magnitude = 0;
    for (int64_t i = 0; i < h.rows; ++i) {
      if (j < h.ranges[i].begin || j >= h.ranges[i].end) continue;
      const Number p = dropped<Policy>(h, i, j);
      grad_v += p * h.grad_out[i * h.head_dim + d];
      grad_k += h.grad_scores[i * h.keys + j] * h.scale * h.q[i * h.head_dim + d];
      if (d != 0) continue;
      k_magnitude += grad_score_magnitude(h, i, j) * h.q_sizes[i].largest;
      v_magnitude += static_cast<double>(p) * h.sensitivity(i, j) * h.grad_out_sizes[i].largest;
    }
    h.grad_k[j * h.head_dim + d] = grad_k;
    h.grad_v[j * h.head_dim + d] = grad_v;
    if (d != 0) return;
    h.k_magnitude[j] += k_magnitude;
    h.v_magnitude[j] += v_magnitude;
  }
};

/// The arrays of one query head, and what its group sums.
template <class Policy, class Params>
class DeviceHead {
 public:
  using Number = typename Policy::Number;
  using Matrix = reference::Matrix<Number>;

  DeviceHead(const Params& p, const Sequence& s, int64_t b, int64_t head)
      : q_(read(p, p.q, s.batch * p.q_batch_stride + s.q_begin * p.q_row_stride + head * p.q_head_stride,
                p.q_row_stride, s.end_q)),
        k_(read(p, p.k, s.batch * p.k_batch_stride + s.k_begin * p.k_row_stride + head_k(p, head) * p.k_head_stride,
                p.k_row_stride, s.end_k)),
        v_(read(p, p.v, s.batch * p.v_batch_stride + s.k_begin * p.v_row_stride + head_k(p, head) * p.v_head_stride,
                p.v_row_stride, s.end_k)),
        q_sizes_(sizes(q_, s.end_q)),
        k_sizes_(sizes(k_, s.end_k)),
        v_sizes_(sizes(v_, s.end_k)),
        q_values_(q_.values),
        k_values_(k_.values),
        v_values_(v_.values),
        ranges_(ranges(p, s)),
        scores_(s.end_q * s.end_k),
        probabilities_(s.end_q * s.end_k),
        out_(s.end_q * p.head_dim),
        lse_(s.end_q),
        mean_score_(s.end_q),
        score_magnitude_(s.end_q),
        out_magnitude_(s.end_q) {
    h_ = {};
    h_.dtype = p.dtype;
    h_.rows = s.end_q;
    h_.keys = s.end_k;
    h_.head_dim = p.head_dim;
    h_.scale = static_cast<Number>(p.softmax_scale);
    h_.ranges = ranges_.data();
    h_.q = q_values_.data(), h_.k = k_values_.data(), h_.v = v_values_.data();
    h_.q_sizes = q_sizes_.data(), h_.k_sizes = k_sizes_.data(), h_.v_sizes = v_sizes_.data();
    h_.head_index = static_cast<uint64_t>(b * p.num_heads_q + head);
    h_.threshold = dropout_threshold(p.dropout_p);
    if (p.rng_state != nullptr) h_.seed = p.rng_state[0], h_.offset = p.rng_state[1];
    h_.scores = scores_.data(), h_.probabilities = probabilities_.data();
    h_.out = out_.data(), h_.lse = lse_.data(), h_.mean_score = mean_score_.data();
    h_.score_magnitude = score_magnitude_.data(), h_.out_magnitude = out_magnitude_.data();
    launch(h_.rows, h_.keys, Scores<Policy, Number>{h_});
    launch(h_.rows, 1, Softmax<Policy, Number>{h_});
    launch(h_.rows, h_.head_dim, Out<Policy, Number>{h_});
  }

  HeadData<Number>& data() { return h_; }
  std::vector<Number> out() const { return out_.values(); }
  std::vector<double> lse() const { return lse_.values(); }
  std::vector<double> score_magnitude() const { return score_magnitude_.values(); }
  double out_magnitude() const { return largest(out_magnitude_.values()); }

  static double largest(const std::vector<double>& values) {
    double result = 0;
    for (const double value : values) result = std::fmax(result, value);
    return result;
  }
  static Matrix read(const Params& p, const void* base, int64_t offset, int64_t row_stride, int64_t rows) {
    return reference::read<Number>(base, p.dtype, offset, row_stride, rows, p.head_dim);
  }

 private:
  static int64_t head_k(const Params& p, int64_t head) { return head / (p.num_heads_q / p.num_heads_k); }
  static std::vector<Range> ranges(const Params& p, const Sequence& s) {
    std::vector<Range> result(s.end_q);
    for (int64_t i = 0; i < s.end_q; ++i) result[i] = reference::visible_keys(p, s, i);
    return result;
  }

  Matrix q_, k_, v_;
  Array<Size> q_sizes_, k_sizes_, v_sizes_;
  Array<Number> q_values_, k_values_, v_values_;
  Array<Range> ranges_;
  Array<Number> scores_, probabilities_, out_;
  Array<double> lse_, mean_score_, score_magnitude_, out_magnitude_;
  HeadData<Number> h_;
};

/// Where row i of a head is in a compact tensor [batch, total, heads, D]; batch is 0 in varlen.
int64_t compact_row(const Sequence& s, int64_t total, int64_t begin, int64_t i, int64_t heads, int64_t head) {
  return (s.batch * total + begin + i) * heads + head;
}

template <class Number>
void scatter(const std::vector<Number>& rows, int64_t head_dim, const Sequence& s, int64_t total, int64_t begin,
             int64_t heads, int64_t head, std::vector<double>& to) {
  const int64_t count = static_cast<int64_t>(rows.size()) / head_dim;
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(rows.begin() + i * head_dim, head_dim,
                to.begin() + compact_row(s, total, begin, i, heads, head) * head_dim);
  }
}

template <class Params>
struct Extent {
  int64_t batch, rows_q, rows_k;
  explicit Extent(const Params& p)
      : batch(p.cu_seqlens_q != nullptr ? 1 : p.batch),
        rows_q(p.cu_seqlens_q != nullptr ? p.total_q : p.seqlen_q),
        rows_k(p.cu_seqlens_q != nullptr ? p.total_k : p.seqlen_k) {}
};

template <class Policy>
reference::Forward forward_as(const AttentionFwdParams& p) {
  const Extent extent(p);
  reference::Forward result;
  result.out.resize(extent.batch * extent.rows_q * p.num_heads_q * p.head_dim);
  result.softmax_lse.resize(extent.batch * p.num_heads_q * extent.rows_q, -std::numeric_limits<double>::infinity());
  result.score_magnitude.resize(result.softmax_lse.size());
  for (int64_t b = 0; b < p.batch; ++b) {
    const Sequence s = reference::sequence(p, b);
    for (int64_t head = 0; head < p.num_heads_q; ++head) {
      const DeviceHead<Policy, AttentionFwdParams> on_device(p, s, b, head);
      scatter(on_device.out(), p.head_dim, s, extent.rows_q, s.q_begin, p.num_heads_q, head, result.out);
      const int64_t row = (s.batch * p.num_heads_q + head) * extent.rows_q + s.q_begin;
      std::ranges::copy(on_device.lse(), result.softmax_lse.begin() + row);
      std::ranges::copy(on_device.score_magnitude(), result.score_magnitude.begin() + row);
      result.magnitudes.out = std::fmax(result.magnitudes.out, on_device.out_magnitude());
    }
  }
  return result;
}

/// The gradients of one group of heads.
template <class Policy>
void add_group(const AttentionBwdParams& p, const Sequence& s, int64_t b, int64_t head_k, reference::Backward& result) {
  using Number = typename Policy::Number;
  using Head = DeviceHead<Policy, AttentionBwdParams>;
  const Extent extent(p);
  const Array<Number> grad_k(s.end_k * p.head_dim), grad_v(s.end_k * p.head_dim);
  const Array<double> k_magnitude(s.end_k), v_magnitude(s.end_k);
  const int64_t group = p.num_heads_q / p.num_heads_k;
  for (int64_t head = head_k * group; head < (head_k + 1) * group; ++head) {
    Head on_device(p, s, b, head);
    const auto grad_out = Head::read(
        p, p.grad_out,
        s.batch * p.grad_out_batch_stride + s.q_begin * p.grad_out_row_stride + head * p.grad_out_head_stride,
        p.grad_out_row_stride, s.end_q);
    const Array<Number> grad_out_values(grad_out.values);
    const Array<Size> grad_out_sizes(sizes(grad_out, s.end_q));
    const Array<Number> grad_scores(s.end_q * s.end_k), delta(s.end_q), grad_q(s.end_q * p.head_dim);
    const Array<double> delta_magnitude(s.end_q), q_magnitude(s.end_q);
    std::vector<float> grad_lse;
    if (p.grad_softmax_lse != nullptr) {
      const float* from = p.grad_softmax_lse + (s.batch * p.num_heads_q + head) * extent.rows_q + s.q_begin;
      grad_lse.assign(from, from + s.end_q);
    }
    const Array<float> grad_lse_values(grad_lse);

    HeadData<Number>& h = on_device.data();
    h.grad_out = grad_out_values.data(), h.grad_out_sizes = grad_out_sizes.data();
    h.grad_scores = grad_scores.data(), h.delta = delta.data(), h.grad_q = grad_q.data();
    h.grad_k = grad_k.data(), h.grad_v = grad_v.data();
    h.delta_magnitude = delta_magnitude.data(), h.q_magnitude = q_magnitude.data();
    h.k_magnitude = k_magnitude.data(), h.v_magnitude = v_magnitude.data();
    launch(h.rows, 1, Delta<Policy, Number>{h, p.grad_softmax_lse == nullptr ? nullptr : grad_lse_values.data()});
    launch(h.rows, h.keys, GradScores<Policy, Number>{h});
    launch(h.rows, h.head_dim, GradQuery<Policy, Number>{h});
    launch(h.keys, h.head_dim, GradKeyValue<Policy, Number>{h});
    scatter(grad_q.values(), p.head_dim, s, extent.rows_q, s.q_begin, p.num_heads_q, head, result.grad_q);
    result.magnitudes.grad_q = std::fmax(result.magnitudes.grad_q, Head::largest(q_magnitude.values()));
  }
  const auto rounded = [&](const Array<Number>& sums) {
    std::vector<Number> values = sums.values();
    if constexpr (std::is_same_v<Number, float>) {
      for (float& value : values) value = round_to(p.dtype, value);
    }
    return values;
  };
  scatter(rounded(grad_k), p.head_dim, s, extent.rows_k, s.k_begin, p.num_heads_k, head_k, result.grad_k);
  scatter(rounded(grad_v), p.head_dim, s, extent.rows_k, s.k_begin, p.num_heads_k, head_k, result.grad_v);
  result.magnitudes.grad_k = std::fmax(result.magnitudes.grad_k, Head::largest(k_magnitude.values()));
  result.magnitudes.grad_v = std::fmax(result.magnitudes.grad_v, Head::largest(v_magnitude.values()));
}

template <class Policy>
reference::Backward backward_as(const AttentionBwdParams& p) {
  const Extent extent(p);
  reference::Backward result;
  result.grad_q.resize(extent.batch * extent.rows_q * p.num_heads_q * p.head_dim);
  result.grad_k.resize(extent.batch * extent.rows_k * p.num_heads_k * p.head_dim);
  result.grad_v.resize(result.grad_k.size());
  for (int64_t b = 0; b < p.batch; ++b) {
    const Sequence s = reference::sequence(p, b);
    for (int64_t head_k = 0; head_k < p.num_heads_k; ++head_k) add_group<Policy>(p, s, b, head_k, result);
  }
  return result;
}

}  // namespace

reference::Forward cuda_reference_forward(const AttentionFwdParams& params, Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kExact ? forward_as<DeviceExact>(params) : forward_as<DevicePlain>(params);
}

reference::Backward cuda_reference_backward(const AttentionBwdParams& params, Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kExact ? backward_as<DeviceExact>(params) : backward_as<DevicePlain>(params);
}

}  // namespace strobe::testing
