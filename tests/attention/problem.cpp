#include "tests/attention/problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <ostream>
#include <random>

#include "src/attention/element.h"
#include "tests/attention/thread_pool.h"

namespace strobe::testing {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<int32_t> cumulative(const std::vector<int32_t>& lengths) {
  if (lengths.empty()) return {};
  std::vector<int32_t> result(lengths.size() + 1, 0);
  std::partial_sum(lengths.begin(), lengths.end(), result.begin() + 1);
  return result;
}

/// The extents of q (or, with of_keys, of k) in a case.
struct Extents {
  int64_t batch, rows, heads;
};

Extents extents(const AttentionCase& c, bool of_keys) {
  const auto& lengths = of_keys ? c.lengths_k : c.lengths_q;
  const int64_t heads = of_keys ? c.num_heads_k : c.num_heads_q;
  if (!c.is_varlen()) return {c.batch, of_keys ? c.seqlen_k : c.seqlen_q, heads};
  return {1, std::accumulate(lengths.begin(), lengths.end(), c.spare_tokens), heads};
}

int64_t storage_elements(const Tensor& t) {
  return std::max<int64_t>(t.batch_stride * t.batch, t.row_stride * t.rows * (t.batch > 0 ? 1 : 0));
}

Tensor make_tensor(const AttentionCase& c, bool of_keys) {
  const auto [batch, rows, heads] = extents(c, of_keys);
  const int64_t d = c.head_dim;
  Tensor t{nullptr, c.dtype, 0, batch, rows, heads, d, 0, 0, 0};
  if (c.layout == Layout::kBHND) {
    t.row_stride = d;
    t.head_stride = rows * d;
    t.batch_stride = heads * rows * d;
  } else {
    const int64_t gap = c.layout == Layout::kPadded ? 16 : 0;
    t.head_stride = d + gap;
    t.row_stride = heads * t.head_stride + 2 * gap;
    t.batch_stride = rows * t.row_stride + 4 * gap;
  }
  t.storage = std::make_shared<Storage>(storage_elements(t) * element_size(c.dtype));
  return t;
}

/// The heads [first_head, first_head + heads) of a packed tensor.
Tensor slice(const Tensor& packed, int64_t first_head, int64_t heads) {
  Tensor t = packed;
  t.begin = first_head * packed.head_stride;
  t.heads = heads;
  return t;
}

struct QueryKeyValue {
  Tensor q, k, v;
};

QueryKeyValue make_qkv(const AttentionCase& c) {
  if (c.layout != Layout::kPacked) return {make_tensor(c, false), make_tensor(c, true), make_tensor(c, true)};
  const bool all_in_one = extents(c, false).rows == extents(c, true).rows;
  AttentionCase packed_case = c;
  packed_case.num_heads_k = 2 * c.num_heads_k + (all_in_one ? c.num_heads_q : 0);
  const Tensor packed = make_tensor(packed_case, true);
  const int64_t first_key = all_in_one ? c.num_heads_q : 0;
  return {all_in_one ? slice(packed, 0, c.num_heads_q) : make_tensor(c, false), slice(packed, first_key, c.num_heads_k),
          slice(packed, first_key + c.num_heads_k, c.num_heads_k)};
}

void fill(const Tensor& t, std::mt19937& random, float amplitude) {
  std::normal_distribution<float> normal;
  for (int64_t b = 0; b < t.batch; ++b) {
    for (int64_t i = 0; i < t.rows; ++i) {
      for (int64_t h = 0; h < t.heads; ++h) {
        for (int64_t d = 0; d < t.head_dim; ++d) t.set(b, i, h, d, amplitude * normal(random));
      }
    }
  }
}

bool bitwise_equal(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

const char* text(Layout layout) {
  switch (layout) {
    case Layout::kBNHD:
      return "BNHD";
    case Layout::kBHND:
      return "BHND";
    case Layout::kPacked:
      return "packed";
    case Layout::kPadded:
      return "padded";
  }
  return "?";
}

void print(std::ostream& out, const char* name, const std::vector<int32_t>& values) {
  if (values.empty()) return;
  out << ' ' << name << "={";
  for (std::size_t i = 0; i < values.size(); ++i) out << (i == 0 ? "" : ",") << values[i];
  out << '}';
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const AttentionCase& c) {
  out << name(c.dtype) << " B=" << c.batch << " Nq=" << c.seqlen_q << " Nk=" << c.seqlen_k << " Hq=" << c.num_heads_q
      << " Hk=" << c.num_heads_k << " D=" << c.head_dim << ' ' << text(c.layout);
  if (c.causal) out << " causal";
  if (c.window_left >= 0 || c.window_right >= 0) out << " window=" << c.window_left << ',' << c.window_right;
  print(out, "key_lengths", c.key_lengths);
  print(out, "query_lengths", c.query_lengths);
  print(out, "lengths_q", c.lengths_q);
  print(out, "lengths_k", c.lengths_k);
  if (c.spare_tokens > 0) out << " spare=" << c.spare_tokens;
  if (c.dropout_p > 0) out << " dropout=" << c.dropout_p;
  if (c.lse_gradient) out << " dLSE";
  if (c.amplitude != 1) out << " amplitude=" << c.amplitude;
  if (c.num_threads != 1) out << " threads=" << c.num_threads;
  return out;
}

bool bitwise_equal(const Results& a, const Results& b) {
  return bitwise_equal(a.out, b.out) && bitwise_equal(a.softmax_lse, b.softmax_lse) &&
         bitwise_equal(a.grad_q, b.grad_q) && bitwise_equal(a.grad_k, b.grad_k) && bitwise_equal(a.grad_v, b.grad_v);
}

Problem::Problem(const AttentionCase& c)
    : case_(c),
      cu_seqlens_q_(cumulative(c.lengths_q)),
      cu_seqlens_k_(cumulative(c.lengths_k)),
      rng_state_{c.seed, c.offset} {
  QueryKeyValue tensors = make_qkv(c);
  q_ = tensors.q;
  k_ = tensors.k;
  v_ = tensors.v;
  grad_out_ = make_tensor(c, false);
  std::mt19937 random(c.data_seed);
  fill(q_, random, c.amplitude);
  fill(k_, random, 1.0f);
  fill(v_, random, 1.0f);
  fill(grad_out_, random, 1.0f);
  if (c.lse_gradient) {
    std::normal_distribution<float> normal;
    grad_softmax_lse_.resize(q_.batch * q_.rows * q_.heads);
    for (float& value : grad_softmax_lse_) value = normal(random);
  }
  hide_rows();
}

/// NaN in rows behind the lengths, behind the last sequence, and in rows that no row of the other side meets.
void Problem::hide_rows() {
  const int64_t right = !case_.causal            ? case_.window_right
                        : case_.window_right < 0 ? 0
                                                 : std::min<int64_t>(0, case_.window_right);
  std::vector<bool> seen_q(q_.batch * q_.rows, false), seen_k(k_.batch * k_.rows, false);
  for (int64_t b = 0; b < case_.batch; ++b) {
    const bool varlen = case_.is_varlen();
    const int64_t first_q = varlen ? cu_seqlens_q_[b] : b * case_.seqlen_q;
    const int64_t first_k = varlen ? cu_seqlens_k_[b] : b * case_.seqlen_k;
    const int64_t nq = varlen ? case_.lengths_q[b] : case_.seqlen_q;
    const int64_t nk = varlen ? case_.lengths_k[b] : case_.seqlen_k;
    const int64_t end_q = case_.query_lengths.empty() ? nq : std::clamp<int64_t>(case_.query_lengths[b], 0, nq);
    const int64_t end_k = case_.key_lengths.empty() ? nk : std::clamp<int64_t>(case_.key_lengths[b], 0, nk);
    for (int64_t i = 0; i < end_q; ++i) {
      for (int64_t j = 0; j < end_k; ++j) {
        const int64_t distance = j - (i + nk - nq);
        if (case_.window_left >= 0 && distance < -case_.window_left) continue;
        if (right >= 0 && distance > right) continue;
        seen_q[first_q + i] = seen_k[first_k + j] = true;
      }
    }
  }
  for (int64_t row = 0; row < q_.batch * q_.rows; ++row) {
    if (seen_q[row]) continue;
    q_.set_row(row / q_.rows, row % q_.rows, kNaN);
    grad_out_.set_row(row / q_.rows, row % q_.rows, kNaN);
  }
  for (int64_t row = 0; row < k_.batch * k_.rows; ++row) {
    if (seen_k[row]) continue;
    k_.set_row(row / k_.rows, row % k_.rows, kNaN);
    v_.set_row(row / k_.rows, row % k_.rows, kNaN);
  }
}

template <class Params>
void Problem::set_common(Params& p, Algorithm algorithm) const {
  const AttentionCase& c = case_;
  const auto data = [](const auto& values) { return values.empty() ? nullptr : values.data(); };
  p.dtype = c.dtype;
  p.algorithm = algorithm;
  p.batch = c.batch;
  p.seqlen_q = c.seqlen_q;
  p.seqlen_k = c.seqlen_k;
  p.total_q = c.is_varlen() ? q_.rows : 0;
  p.total_k = c.is_varlen() ? k_.rows : 0;
  p.num_heads_q = c.num_heads_q;
  p.num_heads_k = c.num_heads_k;
  p.head_dim = c.head_dim;
  p.q = q_.data();
  p.k = k_.data();
  p.v = v_.data();
  p.q_batch_stride = q_.batch_stride, p.q_row_stride = q_.row_stride, p.q_head_stride = q_.head_stride;
  p.k_batch_stride = k_.batch_stride, p.k_row_stride = k_.row_stride, p.k_head_stride = k_.head_stride;
  p.v_batch_stride = v_.batch_stride, p.v_row_stride = v_.row_stride, p.v_head_stride = v_.head_stride;
  p.key_lengths = data(c.key_lengths);
  p.query_lengths = data(c.query_lengths);
  p.cu_seqlens_q = data(cu_seqlens_q_);
  p.cu_seqlens_k = data(cu_seqlens_k_);
  p.softmax_scale = c.softmax_scale > 0 ? c.softmax_scale : 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  p.causal = c.causal;
  p.window_left = c.window_left;
  p.window_right = c.window_right;
  p.dropout_p = c.dropout_p;
  p.rng_state = c.dropout_p > 0 ? rng_state_ : nullptr;
}

AttentionFwdParams Problem::fwd_params(Algorithm algorithm) const {
  AttentionFwdParams p;
  set_common(p, algorithm);
  p.out_batch_stride = grad_out_.batch_stride;
  p.out_row_stride = grad_out_.row_stride;
  p.out_head_stride = grad_out_.head_stride;
  return p;
}

AttentionBwdParams Problem::bwd_params(Algorithm algorithm) const {
  AttentionBwdParams p;
  set_common(p, algorithm);
  p.grad_out = grad_out_.data();
  p.grad_softmax_lse = grad_softmax_lse_.empty() ? nullptr : grad_softmax_lse_.data();
  p.out_batch_stride = p.grad_out_batch_stride = grad_out_.batch_stride;
  p.out_row_stride = p.grad_out_row_stride = grad_out_.row_stride;
  p.out_head_stride = p.grad_out_head_stride = grad_out_.head_stride;
  p.grad_q_batch_stride = q_.batch_stride, p.grad_q_row_stride = q_.row_stride, p.grad_q_head_stride = q_.head_stride;
  p.grad_k_batch_stride = k_.batch_stride, p.grad_k_row_stride = k_.row_stride, p.grad_k_head_stride = k_.head_stride;
  p.grad_v_batch_stride = v_.batch_stride, p.grad_v_row_stride = v_.row_stride, p.grad_v_head_stride = v_.head_stride;
  return p;
}

/// Lets the params point to the inputs where the device sees them.
template <class Params>
void Problem::move_inputs(DeviceMemory& memory, Params& p) const {
  for (const Tensor* t : {&q_, &k_, &v_, &grad_out_})
    memory.add(t->storage->bytes().data(), t->storage->bytes().size());
  for (const auto* words : {&case_.key_lengths, &case_.query_lengths, &cu_seqlens_q_, &cu_seqlens_k_}) {
    memory.add(words->data(), words->size() * sizeof(int32_t));
  }
  memory.add(rng_state_, sizeof(rng_state_));
  p.device = kDevice;
  p.q = memory.at(p.q), p.k = memory.at(p.k), p.v = memory.at(p.v);
  p.key_lengths = memory.at(p.key_lengths), p.query_lengths = memory.at(p.query_lengths);
  p.cu_seqlens_q = memory.at(p.cu_seqlens_q), p.cu_seqlens_k = memory.at(p.cu_seqlens_k);
  p.rng_state = memory.at(p.rng_state);
}

Results Problem::run(const KernelSetting& setting) const {
  const Tensor out = make_tensor(case_, false);
  const QueryKeyValue grads = make_qkv(case_);
  const Tensor lse{std::make_shared<Storage>(q_.batch * q_.rows * q_.heads * 4),
                   DType::kFloat32,
                   0,
                   q_.batch,
                   q_.heads,
                   q_.rows,
                   1,
                   q_.rows * q_.heads,
                   q_.rows,
                   1};  // [batch, heads, rows, 1]
  DeviceMemory memory;
  const auto on_device = [&](const Tensor& t) {
    t.own();
    memory.add(t.storage->bytes().data(), t.storage->bytes().size());
    return memory.at(t.data());
  };

  AttentionFwdParams fwd = fwd_params(setting.algorithm);
  move_inputs(memory, fwd);
  fwd.out = on_device(out);
  fwd.softmax_lse = static_cast<float*>(on_device(lse));
  AttentionBwdParams bwd = bwd_params(setting.algorithm);
  move_inputs(memory, bwd);
  bwd.deterministic = setting.deterministic;
  bwd.out = fwd.out;
  bwd.softmax_lse = fwd.softmax_lse;
  bwd.grad_out = memory.at(bwd.grad_out);
  memory.add(grad_softmax_lse_.data(), grad_softmax_lse_.size() * sizeof(float));
  bwd.grad_softmax_lse = memory.at(bwd.grad_softmax_lse);
  bwd.grad_q = on_device(grads.q);
  bwd.grad_k = on_device(grads.k);
  bwd.grad_v = on_device(grads.v);
  if (case_.num_threads > 1) {
    fwd.num_threads = bwd.num_threads = case_.num_threads;
    fwd.parallel_for = bwd.parallel_for = parallel_for(case_.num_threads);
  }

  EXPECT_EQ(attention_why_not(fwd), "") << case_;
  EXPECT_EQ(attention_why_not(bwd), "") << case_;
  Workspace fwd_workspace(attention_workspace_size(fwd)), bwd_workspace(attention_workspace_size(bwd));
  for (const Workspace* workspace : {&fwd_workspace, &bwd_workspace}) {
    memory.add(workspace->bytes().data(), workspace->bytes().size());
  }
  fwd.workspace = memory.at(fwd_workspace.data());
  attention_forward(fwd);
  bwd.workspace = memory.at(bwd_workspace.data());
  attention_backward(bwd);
  memory.bring_back();

  for (const Tensor* t : {&out, &grads.q, &grads.k, &grads.v, &lse}) {
    EXPECT_TRUE(t->storage->untouched()) << "written beside a tensor: " << case_;
  }
  EXPECT_TRUE(fwd_workspace.untouched_behind()) << "written behind the workspace: " << case_;
  EXPECT_TRUE(bwd_workspace.untouched_behind()) << "written behind the workspace: " << case_;
  return {out.compact(), lse.compact(), grads.q.compact(), grads.k.compact(), grads.v.compact()};
}

}  // namespace strobe::testing
