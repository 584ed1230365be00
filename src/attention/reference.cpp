#include "src/attention/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/attention/reference_head.h"

namespace strobe::reference {
namespace {

/// Row i of head h in a compact tensor of `heads` heads, dense or varlen.
int64_t compact_row(int64_t batch, int64_t rows, int64_t begin, int64_t i, int64_t heads, int64_t h) {
  return ((batch * rows + begin + i) * heads + h);
}

template <class Params>
bool is_varlen(const Params& p) {
  return p.cu_seqlens_q != nullptr;
}
template <class Params>
int64_t rows_q(const Params& p) {
  return is_varlen(p) ? p.total_q : p.seqlen_q;
}
template <class Params>
int64_t rows_k(const Params& p) {
  return is_varlen(p) ? p.total_k : p.seqlen_k;
}
template <class Params>
int64_t dense_batch(const Params& p) {
  return is_varlen(p) ? 1 : p.batch;
}

template <class Policy>
void forward_head(const AttentionFwdParams& p, int64_t b, int64_t h, Forward& result) {
  const Sequence s = sequence(p, b);
  Head<Policy, AttentionFwdParams> head(p, s, b, h);
  for (int64_t i = 0; i < s.end_q; ++i) {
    double lse = 0;
    const Range range = head.softmax_row(i, &lse);
    const auto out = head.output_row(range);
    std::copy(out.begin(), out.end(),
              result.out.begin() + compact_row(s.batch, rows_q(p), s.q_begin, i, p.num_heads_q, h) * p.head_dim);
    const int64_t row = (s.batch * p.num_heads_q + h) * rows_q(p) + s.q_begin + i;
    result.softmax_lse[row] = lse;
    const double q_norm = p.softmax_scale * size(head.q().row(i), p.head_dim).norm;
    double magnitude = 0;
    for (int64_t j = range.begin; j < range.end; ++j) {
      result.score_magnitude[row] = std::max(result.score_magnitude[row], q_norm * head.k_sizes()[j].norm);
      magnitude += static_cast<double>(head.dropped(j)) * head.sensitivity(j) * head.v_sizes()[j].largest;
    }
    result.magnitudes.out = std::fmax(result.magnitudes.out, magnitude);
  }
}

template <class Policy>
Forward forward_as(const AttentionFwdParams& p) {
  Forward result;
  result.out.resize(dense_batch(p) * rows_q(p) * p.num_heads_q * p.head_dim);
  result.softmax_lse.resize(dense_batch(p) * p.num_heads_q * rows_q(p), -std::numeric_limits<double>::infinity());
  result.score_magnitude.resize(result.softmax_lse.size());
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t h = 0; h < p.num_heads_q; ++h) forward_head<Policy>(p, b, h, result);
  }
  return result;
}

/// The gradient of the heads of one group with respect to their common key/value head.
template <class Policy>
class GroupGradient {
 public:
  using Number = typename Policy::Number;

  GroupGradient(const AttentionBwdParams& p, int64_t b, int64_t head_k, Backward& result)
      : p_(p),
        s_(sequence(p, b)),
        b_(b),
        head_k_(head_k),
        result_(result),
        grad_k_(s_.end_k, p.head_dim),
        grad_v_(s_.end_k, p.head_dim),
        magnitude_k_(s_.end_k),
        magnitude_v_(s_.end_k) {}

  void run() {
    const int64_t group = p_.num_heads_q / p_.num_heads_k;
    for (int64_t h = head_k_ * group; h < (head_k_ + 1) * group; ++h) add_head(h);
    for (int64_t j = 0; j < s_.end_k; ++j) {
      const int64_t to = compact_row(s_.batch, rows_k(p_), s_.k_begin, j, p_.num_heads_k, head_k_) * p_.head_dim;
      for (int64_t d = 0; d < p_.head_dim; ++d) {
        result_.grad_k[to + d] = Policy::round(p_.dtype, grad_k_.row(j)[d]);
        result_.grad_v[to + d] = Policy::round(p_.dtype, grad_v_.row(j)[d]);
      }
      result_.magnitudes.grad_k = std::fmax(result_.magnitudes.grad_k, magnitude_k_[j]);
      result_.magnitudes.grad_v = std::fmax(result_.magnitudes.grad_v, magnitude_v_[j]);
    }
  }

 private:
  using QueryHead = Head<Policy, AttentionBwdParams>;

  void add_head(int64_t h) {
    QueryHead head(p_, s_, b_, h);
    const int64_t offset =
        s_.batch * p_.grad_out_batch_stride + s_.q_begin * p_.grad_out_row_stride + h * p_.grad_out_head_stride;
    const auto grad_out = read<Number>(p_.grad_out, p_.dtype, offset, p_.grad_out_row_stride, s_.end_q, p_.head_dim);
    const auto v_columns = transposed(head.v());
    std::vector<Number> grad_p(s_.end_k);
    for (int64_t i = 0; i < s_.end_q; ++i) {
      double lse = 0;
      const Range range = head.softmax_row(i, &lse);
      multiply(grad_out.row(i), v_columns, p_.head_dim, range, grad_p.data());
      add_row(head, h, i, range, grad_out.row(i), grad_p);
      add_magnitudes(head, i, range, grad_out.row(i));
    }
  }

  /// delta - dLSE of row i (FlashAttention-2, section 2.3.2: D = rowsum(dO * O)).
  Number delta(const QueryHead& head, int64_t h, int64_t i, Range range, const Number* grad_out) const {
    const auto out = head.output_row(range);
    Number sum = 0;
    for (int64_t d = 0; d < p_.head_dim; ++d) sum += grad_out[d] * out[d];
    if (p_.grad_softmax_lse == nullptr) return sum;
    return sum - p_.grad_softmax_lse[(s_.batch * p_.num_heads_q + h) * rows_q(p_) + s_.q_begin + i];
  }

  void add_row(const QueryHead& head, int64_t h, int64_t i, Range range, const Number* grad_out,
               const std::vector<Number>& grad_p) {
    const Number delta_i = delta(head, h, i, range, grad_out);
    const Number scale = static_cast<Number>(p_.softmax_scale);
    std::vector<Number> grad_q(p_.head_dim, Number{0});
    for (int64_t j = range.begin; j < range.end; ++j) {
      const Number dropped_grad = Policy::round(p_.dtype, grad_p[j]) * head.keep()[j];
      const Number grad_s = Policy::round(p_.dtype, head.probabilities()[j] * (dropped_grad - delta_i));
      add_scaled(head.dropped(j), grad_out, p_.head_dim, grad_v_.row(j));
      add_scaled(grad_s * scale, head.q().row(i), p_.head_dim, grad_k_.row(j));
      add_scaled(grad_s * scale, head.k().row(j), p_.head_dim, grad_q.data());
    }
    const int64_t to = compact_row(s_.batch, rows_q(p_), s_.q_begin, i, p_.num_heads_q, h) * p_.head_dim;
    for (int64_t d = 0; d < p_.head_dim; ++d) result_.grad_q[to + d] = Policy::round(p_.dtype, grad_q[d]);
  }

  void add_magnitudes(const QueryHead& head, int64_t i, Range range, const Number* grad_out) {
    const Size grad_size = size(grad_out, p_.head_dim);
    const double largest_q = size(head.q().row(i), p_.head_dim).largest;
    double delta = 0;
    for (int64_t j = range.begin; j < range.end; ++j) {
      delta += static_cast<double>(head.dropped(j)) * head.sensitivity(j) * grad_size.norm * head.v_sizes()[j].norm;
    }
    double magnitude_q = 0;
    for (int64_t j = range.begin; j < range.end; ++j) {
      const double grad_p = static_cast<double>(head.keep()[j]) * grad_size.norm * head.v_sizes()[j].norm;
      const double p = static_cast<double>(head.probabilities()[j]) * head.sensitivity(j);
      const double grad_s = p * (grad_p + delta) * p_.softmax_scale;
      magnitude_q += grad_s * head.k_sizes()[j].largest;
      magnitude_k_[j] += grad_s * largest_q;
      magnitude_v_[j] += static_cast<double>(head.dropped(j)) * head.sensitivity(j) * grad_size.largest;
    }
    result_.magnitudes.grad_q = std::fmax(result_.magnitudes.grad_q, magnitude_q);
  }

  const AttentionBwdParams& p_;
  Sequence s_;
  int64_t b_, head_k_;
  Backward& result_;
  Matrix<Number> grad_k_, grad_v_;
  std::vector<double> magnitude_k_, magnitude_v_;
};

template <class Policy>
Backward backward_as(const AttentionBwdParams& p) {
  Backward result;
  result.grad_q.resize(dense_batch(p) * rows_q(p) * p.num_heads_q * p.head_dim);
  result.grad_k.resize(dense_batch(p) * rows_k(p) * p.num_heads_k * p.head_dim);
  result.grad_v.resize(result.grad_k.size());
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t h = 0; h < p.num_heads_k; ++h) GroupGradient<Policy>(p, b, h, result).run();
  }
  return result;
}

}  // namespace

Forward forward(const AttentionFwdParams& params, Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kExact ? forward_as<Exact>(params) : forward_as<Plain>(params);
}

Backward backward(const AttentionBwdParams& params, Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kExact ? backward_as<Exact>(params) : backward_as<Plain>(params);
}

}  // namespace strobe::reference
