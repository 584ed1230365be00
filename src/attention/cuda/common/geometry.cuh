// Where the sequences of a call stand in memory and which keys a row sees.
#pragma once

#include "src/attention/cuda/common/call.h"

namespace strobe::cuda {

/// Half open.
struct Range {
  int begin, end;
  __device__ bool empty() const { return begin >= end; }
};

struct Sequence {
  int64_t index;             // b
  int64_t q_begin, k_begin;  // varlen: the first token; dense: 0
  int num_q, num_k;          // Nq, Nk: the rows in memory, and the diagonal
  int end_q, end_k;          // rows and keys at or beyond are hidden

  /// Row 0 of a head.
  template <class T>
  __device__ T* q_rows(const Call& c, const Strided& t, int head) const {
    return rows<T>(c, t, q_begin, head);
  }
  template <class T>
  __device__ T* k_rows(const Call& c, const Strided& t, int head) const {
    return rows<T>(c, t, k_begin, head);
  }
  /// Of row 0 of a head in the LSE and in what is shaped like it.
  __device__ int64_t lse_offset(const Call& c, int head) const {
    return c.varlen() ? head * c.total_q + q_begin : (index * c.num_heads_q + head) * c.seqlen_q;
  }

 private:
  template <class T>
  __device__ T* rows(const Call& c, const Strided& t, int64_t begin, int head) const {
    return static_cast<T*>(t.data) + (c.varlen() ? begin * t.row_stride : index * t.batch_stride) +
           head * t.head_stride;
  }
};

/// Sequence b, 0 <= b < batch.
__device__ inline Sequence sequence(const Call& c, int64_t b) {
  if (c.varlen()) {
    const int q = c.cu_seqlens_q[b], k = c.cu_seqlens_k[b];
    const int num_q = c.cu_seqlens_q[b + 1] - q, num_k = c.cu_seqlens_k[b + 1] - k;
    return {b, q, k, num_q, num_k, num_q, num_k};
  }
  const int end_q = c.query_lengths == nullptr ? c.seqlen_q : min(max(c.query_lengths[b], 0), c.seqlen_q);
  const int end_k = c.key_lengths == nullptr ? c.seqlen_k : min(max(c.key_lengths[b], 0), c.seqlen_k);
  return {b, 0, 0, c.seqlen_q, c.seqlen_k, end_q, end_k};
}

/// The tokens behind the last sequence of a varlen call as one more sequence, none of whose rows and keys is seen: what
/// a kernel does for it is to write zeros.
__device__ inline Sequence spare_tokens(const Call& c) {
  const int q = c.cu_seqlens_q[c.batch], k = c.cu_seqlens_k[c.batch];
  return {c.batch, q, k, static_cast<int>(c.total_q - q), static_cast<int>(c.total_k - k), 0, 0};
}

/// Which pairs of row and key see each other. A row's keys are an interval whose ends do not fall as the row rises, and
/// the other way round.
struct Visibility {
  int diagonal;  // row i is aligned with key i + diagonal
  int left, right;
  int end_q, end_k;

  __device__ Visibility(const Call& c, const Sequence& s)
      : diagonal(s.num_k - s.num_q), left(c.window_left), right(c.window_right), end_q(s.end_q), end_k(s.end_k) {}

  /// The keys of row i < end_q.
  __device__ Range keys_of(int i) const { return {max(0, i + diagonal - left), min(end_k, i + diagonal + right + 1)}; }
  /// The union over rows [first, last) of those below end_q.
  __device__ Range keys_of_rows(int first, int last) const {
    const int stop = min(last, end_q);
    if (first >= stop) return {0, 0};
    return {keys_of(first).begin, keys_of(stop - 1).end};
  }
  /// The rows that see key j < end_k.
  __device__ Range rows_of(int j) const { return {max(0, j - diagonal - right), min(end_q, j - diagonal + left + 1)}; }
  __device__ Range rows_of_keys(int first, int last) const {
    const int stop = min(last, end_k);
    if (first >= stop) return {0, 0};
    return {rows_of(first).begin, rows_of(stop - 1).end};
  }
  /// The keys that every row of [first, last) below end_q sees, at least one row given.
  __device__ Range keys_of_all_rows(int first, int last) const {
    return {keys_of(min(last, end_q) - 1).begin, keys_of(first).end};
  }
  /// The rows that see every key of [first, last) below end_k, at least one key given.
  __device__ Range rows_of_all_keys(int first, int last) const {
    return {rows_of(min(last, end_k) - 1).begin, rows_of(first).end};
  }
};

}  // namespace strobe::cuda
