// One query head of one sequence, by the definition of attention: what the reference's forward and backward share.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "src/attention/element.h"
#include "strobe/dropout.h"

namespace strobe::reference {

/// The two kinds of arithmetic: reference.h.
struct Exact {
  using Number = double;
  static double round(DType, double value) { return value; }
};

struct Plain {
  using Number = float;
  static float round(DType dtype, float value) { return round_to(dtype, value); }
};

/// Sequence b: where its rows stand and how many of them count.
struct Sequence {
  int64_t batch = 0;  // the index that the batch strides multiply
  int64_t q_begin = 0, k_begin = 0;
  int64_t num_q = 0, num_k = 0;  // Nq, Nk: they set the diagonal
  int64_t end_q = 0, end_k = 0;  // rows and keys at or beyond are hidden
};

template <class Params>
Sequence sequence(const Params& p, int64_t b) {
  Sequence s;
  if (p.cu_seqlens_q != nullptr) {
    s.q_begin = p.cu_seqlens_q[b];
    s.k_begin = p.cu_seqlens_k[b];
    s.num_q = s.end_q = p.cu_seqlens_q[b + 1] - s.q_begin;
    s.num_k = s.end_k = p.cu_seqlens_k[b + 1] - s.k_begin;
    return s;
  }
  const auto clamp = [&](const int32_t* lengths, int64_t limit) {
    return lengths == nullptr ? limit : std::clamp<int64_t>(lengths[b], 0, limit);
  };
  s.batch = b;
  s.num_q = p.seqlen_q;
  s.num_k = p.seqlen_k;
  s.end_q = clamp(p.query_lengths, p.seqlen_q);
  s.end_k = clamp(p.key_lengths, p.seqlen_k);
  return s;
}

struct Range {
  int64_t begin, end;
};

/// The keys that row i sees; begin >= end: none.
template <class Params>
Range visible_keys(const Params& p, const Sequence& s, int64_t i) {
  const int64_t right = !p.causal ? p.window_right : p.window_right < 0 ? 0 : std::min<int64_t>(p.window_right, 0);
  const int64_t diagonal = i + s.num_k - s.num_q;
  const int64_t begin = p.window_left < 0 ? 0 : std::max<int64_t>(0, diagonal - p.window_left);
  // The last key can be far beyond the end of the sequence; s.end_k - 1 - diagonal cannot overflow.
  const int64_t end = right < 0 || right > s.end_k - 1 - diagonal ? s.end_k : diagonal + right + 1;
  return {begin, std::min(end, s.end_k)};
}

/// Rows [0, count) of one head, as numbers.
template <class Number>
struct Matrix {
  int64_t columns = 0;
  std::vector<Number> values;

  Matrix(int64_t rows, int64_t columns_) : columns(columns_), values(rows * columns_) {}
  Number* row(int64_t i) { return values.data() + i * columns; }
  const Number* row(int64_t i) const { return values.data() + i * columns; }
};

template <class Number>
Matrix<Number> read(const void* base, DType dtype, int64_t offset, int64_t row_stride, int64_t rows, int64_t head_dim) {
  Matrix<Number> result(rows, head_dim);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < head_dim; ++d) {
      result.row(i)[d] = static_cast<Number>(load_element(base, dtype, offset + i * row_stride + d));
    }
  }
  return result;
}

template <class Number>
Matrix<Number> transposed(const Matrix<Number>& m) {
  const int64_t rows = m.columns == 0 ? 0 : static_cast<int64_t>(m.values.size()) / m.columns;
  Matrix<Number> result(m.columns, rows);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < m.columns; ++j) result.row(j)[i] = m.row(i)[j];
  }
  return result;
}

/// result[j] = sum over d, in order, of vector[d] * columns[d][j] for the range.
template <class Number>
void multiply(const Number* vector, const Matrix<Number>& columns_of_d, int64_t head_dim, Range range, Number* result) {
  std::fill(result + range.begin, result + range.end, Number{0});
  for (int64_t d = 0; d < head_dim; ++d) {
    const Number factor = vector[d];
    const Number* column = columns_of_d.row(d);
    for (int64_t j = range.begin; j < range.end; ++j) result[j] += factor * column[j];
  }
}

template <class Number>
void add_scaled(Number factor, const Number* from, int64_t count, Number* to) {
  for (int64_t d = 0; d < count; ++d) to[d] += factor * from[d];
}

/// How large a row is; 0 where it holds an infinity or a NaN, of which no error is measured.
struct Size {
  double largest = 0, norm = 0;
};

template <class Number>
Size size(const Number* row, int64_t count) {
  Size result;
  for (int64_t d = 0; d < count; ++d) {
    const double magnitude = std::fabs(static_cast<double>(row[d]));
    if (!std::isfinite(magnitude)) return {};
    result.largest = std::max(result.largest, magnitude);
    result.norm += magnitude * magnitude;
  }
  result.norm = std::sqrt(result.norm);
  return result;
}

template <class Number>
std::vector<Size> sizes(const Matrix<Number>& m, int64_t rows) {
  std::vector<Size> result(rows);
  for (int64_t i = 0; i < rows; ++i) result[i] = size(m.row(i), m.columns);
  return result;
}

/// One query head of one sequence: what forward and backward share.
template <class Policy, class Params>
class Head {
 public:
  using Number = typename Policy::Number;

  Head(const Params& params, const Sequence& sequence, int64_t b, int64_t h)
      : p_(params),
        s_(sequence),
        head_index_(static_cast<uint64_t>(b * params.num_heads_q + h)),
        threshold_(dropout_threshold(params.dropout_p)),
        q_(read<Number>(params.q, params.dtype, q_offset(params, s_, h), params.q_row_stride, s_.end_q,
                        params.head_dim)),
        k_(read<Number>(params.k, params.dtype, k_offset(params, s_, h), params.k_row_stride, s_.end_k,
                        params.head_dim)),
        v_(read<Number>(params.v, params.dtype, v_offset(params, s_, h), params.v_row_stride, s_.end_k,
                        params.head_dim)),
        k_columns_(transposed(k_)),
        k_sizes_(sizes(k_, s_.end_k)),
        v_sizes_(sizes(v_, s_.end_k)),
        s_row_(s_.end_k),
        p_row_(s_.end_k),
        keep_(s_.end_k, Number{1}) {}

  const Matrix<Number>& q() const { return q_; }
  const Matrix<Number>& k() const { return k_; }
  const Matrix<Number>& v() const { return v_; }
  const std::vector<Size>& k_sizes() const { return k_sizes_; }
  const std::vector<Size>& v_sizes() const { return v_sizes_; }
  /// Of the row last computed: P[i][j], and what dropout multiplies it by.
  const Number* probabilities() const { return p_row_.data(); }
  const Number* keep() const { return keep_.data(); }
  /// 1 + what P[i][j] changes by, relative to one rounding, when every score of the row changes by one:
  /// dP_j / P_j = dS_j - sum_k P_k dS_k.
  double sensitivity(int64_t j) const {
    const double s = std::fabs(static_cast<double>(s_row_[j])), p = static_cast<double>(p_row_[j]);
    const double result = 1 + mean_score_ + (1 - 2 * p) * s;
    return std::isfinite(result) ? result : 1;
  }

  /// P of row i; returns the row's keys and its LSE.
  Range softmax_row(int64_t i, double* lse) {
    const Range range = visible_keys(p_, s_, i);
    *lse = -std::numeric_limits<double>::infinity();
    if (range.begin >= range.end) return {0, 0};
    multiply(q_.row(i), k_columns_, p_.head_dim, range, p_row_.data());
    Number maximum = -std::numeric_limits<Number>::infinity();
    for (int64_t j = range.begin; j < range.end; ++j) {
      p_row_[j] = s_row_[j] = Policy::round(p_.dtype, p_row_[j] * static_cast<Number>(p_.softmax_scale));
      if (!(p_row_[j] <= maximum)) maximum = p_row_[j];  // a NaN becomes the maximum
    }
    Number sum = 0;
    for (int64_t j = range.begin; j < range.end; ++j) sum += p_row_[j] = std::exp(p_row_[j] - maximum);
    for (int64_t j = range.begin; j < range.end; ++j) p_row_[j] = Policy::round(p_.dtype, p_row_[j] / sum);
    *lse = static_cast<double>(maximum + std::log(sum));
    mean_score_ = 0;
    for (int64_t j = range.begin; j < range.end; ++j) {
      mean_score_ += std::fabs(static_cast<double>(p_row_[j]) * static_cast<double>(s_row_[j]));
    }
    drop(i, range);
    return range;
  }

  /// O of the row last computed.
  std::vector<Number> output_row(Range range) const {
    std::vector<Number> out(p_.head_dim, Number{0});
    for (int64_t j = range.begin; j < range.end; ++j) {
      add_scaled(dropped(j), v_.row(j), p_.head_dim, out.data());
    }
    for (Number& value : out) value = Policy::round(p_.dtype, value);
    return out;
  }

  /// The probability after dropout.
  Number dropped(int64_t j) const {
    return p_.dropout_p > 0 ? Policy::round(p_.dtype, p_row_[j] * keep_[j]) : p_row_[j];
  }

 private:
  static int64_t q_offset(const Params& p, const Sequence& s, int64_t h) {
    return s.batch * p.q_batch_stride + s.q_begin * p.q_row_stride + h * p.q_head_stride;
  }
  static int64_t k_offset(const Params& p, const Sequence& s, int64_t h) {
    return s.batch * p.k_batch_stride + s.k_begin * p.k_row_stride +
           h / (p.num_heads_q / p.num_heads_k) * p.k_head_stride;
  }
  static int64_t v_offset(const Params& p, const Sequence& s, int64_t h) {
    return s.batch * p.v_batch_stride + s.k_begin * p.v_row_stride +
           h / (p.num_heads_q / p.num_heads_k) * p.v_head_stride;
  }

  void drop(int64_t i, Range range) {
    if (p_.dropout_p == 0) return;
    const Number scale = dropout_scale(threshold_);
    for (int64_t j = range.begin; j < range.end; ++j) {
      const bool kept = dropout_keeps(p_.rng_state[0], p_.rng_state[1], head_index_, i, j, threshold_);
      keep_[j] = kept ? scale : Number{0};
    }
  }

  const Params& p_;
  Sequence s_;
  uint64_t head_index_;
  uint32_t threshold_;
  Matrix<Number> q_, k_, v_, k_columns_;
  std::vector<Size> k_sizes_, v_sizes_;
  std::vector<Number> s_row_, p_row_, keep_;
  double mean_score_ = 0;
};

}  // namespace strobe::reference
