// A call of the interface as kernels take it: plain data, passed by value.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

#include "strobe/attention.h"
#include "strobe/dropout.h"

namespace strobe::cuda {

// Rows and keys of one sequence are counted in int. With at most 2^29 of them, i + Nk - Nq +- kUnlimited fits, and a
// window of kUnlimited hides nothing.
inline constexpr int64_t kLongestSequence = int64_t{1} << 29;
inline constexpr int kUnlimited = 1 << 30;

/// [B, N, H, D] or [total, H, D]; strides in elements.
struct Strided {
  void* data;
  int64_t batch_stride, row_stride, head_stride;
};

/// What both directions share.
struct Call {
  int64_t batch, total_q, total_k;
  int seqlen_q, seqlen_k, num_heads_q, num_heads_k, head_dim;
  Strided q, k, v;
  const int32_t *key_lengths, *query_lengths, *cu_seqlens_q, *cu_seqlens_k;
  float softmax_scale;
  int window_left, window_right;  // causality included; kUnlimited instead of -1
  const uint64_t* rng_state;      // null: nothing is dropped
  uint32_t dropout_threshold;

  __host__ __device__ bool varlen() const { return cu_seqlens_q != nullptr; }
  __host__ __device__ int group() const { return num_heads_q / num_heads_k; }
};

struct FwdCall : Call {
  Strided out;
  float* softmax_lse;
};

struct BwdCall : Call {
  Strided out, grad_out, grad_q, grad_k, grad_v;
  const float *softmax_lse, *grad_softmax_lse;
};

namespace internal {

inline int window(int64_t width) {
  return static_cast<int>(width < 0 ? kUnlimited : std::min<int64_t>(width, kUnlimited));
}

template <class Params>
Call shared(const Params& p) {
  Call c{};
  c.batch = p.batch;
  c.total_q = p.total_q;
  c.total_k = p.total_k;
  c.seqlen_q = static_cast<int>(p.seqlen_q);
  c.seqlen_k = static_cast<int>(p.seqlen_k);
  c.num_heads_q = static_cast<int>(p.num_heads_q);
  c.num_heads_k = static_cast<int>(p.num_heads_k);
  c.head_dim = static_cast<int>(p.head_dim);
  c.q = {const_cast<void*>(p.q), p.q_batch_stride, p.q_row_stride, p.q_head_stride};
  c.k = {const_cast<void*>(p.k), p.k_batch_stride, p.k_row_stride, p.k_head_stride};
  c.v = {const_cast<void*>(p.v), p.v_batch_stride, p.v_row_stride, p.v_head_stride};
  c.key_lengths = p.key_lengths;
  c.query_lengths = p.query_lengths;
  c.cu_seqlens_q = p.cu_seqlens_q;
  c.cu_seqlens_k = p.cu_seqlens_k;
  c.softmax_scale = p.softmax_scale;
  c.window_left = window(p.window_left);
  c.window_right = p.causal ? 0 : window(p.window_right);
  c.dropout_threshold = dropout_threshold(p.dropout_p);
  c.rng_state = c.dropout_threshold < 65536 ? p.rng_state : nullptr;
  return c;
}

}  // namespace internal

/// For params that validation has passed and whose sequences are not longer than kLongestSequence.
inline FwdCall to_call(const AttentionFwdParams& p) {
  FwdCall c{internal::shared(p), {}, p.softmax_lse};
  c.out = {p.out, p.out_batch_stride, p.out_row_stride, p.out_head_stride};
  return c;
}

inline BwdCall to_call(const AttentionBwdParams& p) {
  BwdCall c{internal::shared(p), {}, {}, {}, {}, {}, p.softmax_lse, p.grad_softmax_lse};
  c.out = {const_cast<void*>(p.out), p.out_batch_stride, p.out_row_stride, p.out_head_stride};
  c.grad_out = {const_cast<void*>(p.grad_out), p.grad_out_batch_stride, p.grad_out_row_stride, p.grad_out_head_stride};
  c.grad_q = {p.grad_q, p.grad_q_batch_stride, p.grad_q_row_stride, p.grad_q_head_stride};
  c.grad_k = {p.grad_k, p.grad_k_batch_stride, p.grad_k_row_stride, p.grad_k_head_stride};
  c.grad_v = {p.grad_v, p.grad_v_batch_stride, p.grad_v_row_stride, p.grad_v_head_stride};
  return c;
}

}  // namespace strobe::cuda
