// Where the sequences of a call stand in memory and which keys a row sees.
#pragma once

namespace strobe::cpu::STROBE_ISA {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Leading dimension of a row of up to `columns` floats: an odd number of vectors, because rows a power of two apart
/// would fall into few sets of the caches.
inline int64_t leading(int64_t columns) { return ((columns + kLanes - 1) / kLanes | 1) * kLanes; }

struct Range {
  int64_t begin, end;
  bool empty() const { return begin >= end; }
};

struct Sequence {
  int64_t index;  // b
  bool varlen;
  int64_t q_begin, k_begin;  // varlen: the first token
  int64_t num_q, num_k;      // Nq, Nk: the rows in memory, and the diagonal
  int64_t end_q, end_k;      // rows and keys at or beyond are hidden

  /// Of a tensor's first row of this sequence and head.
  int64_t q_offset(int64_t batch_stride, int64_t row_stride, int64_t head_stride, int64_t head) const {
    return (varlen ? q_begin * row_stride : index * batch_stride) + head * head_stride;
  }
  int64_t k_offset(int64_t batch_stride, int64_t row_stride, int64_t head_stride, int64_t head) const {
    return (varlen ? k_begin * row_stride : index * batch_stride) + head * head_stride;
  }
};

template <class Params>
Sequence sequence(const Params& p, int64_t b) {
  if (p.cu_seqlens_q != nullptr) {
    const int64_t q = p.cu_seqlens_q[b], k = p.cu_seqlens_k[b];
    const int64_t num_q = p.cu_seqlens_q[b + 1] - q, num_k = p.cu_seqlens_k[b + 1] - k;
    return {b, true, q, k, num_q, num_k, num_q, num_k};
  }
  const auto limit = [b](const int32_t* lengths, int64_t most) {
    return lengths == nullptr ? most : larger(0, smaller(lengths[b], most));
  };
  return {b, false, 0, 0, p.seqlen_q, p.seqlen_k, limit(p.query_lengths, p.seqlen_q), limit(p.key_lengths, p.seqlen_k)};
}

/// Of the LSE of row 0 of a sequence and head.
template <class Params>
int64_t lse_offset(const Params& p, const Sequence& s, int64_t head) {
  return s.varlen ? head * p.total_q + s.q_begin : (s.index * p.num_heads_q + head) * p.seqlen_q;
}

/// The keys that a row sees: an interval whose ends do not fall as the row rises.
struct Visibility {
  int64_t diagonal;  // row i is aligned with key i + diagonal
  int64_t left, right;
  int64_t end_k;
  bool limited;  // by a window or by causality, so that two rows may see different keys

  template <class Params>
  Visibility(const Params& p, const Sequence& s)
      : diagonal(s.num_k - s.num_q), left(p.window_left), right(p.window_right), end_k(s.end_k) {
    if (p.causal) right = 0;
    limited = left >= 0 || right >= 0;
  }

  Range of_row(int64_t i) const {
    const int64_t center = i + diagonal;
    const int64_t begin = left < 0 ? 0 : larger(0, center - left);
    const int64_t end = right < 0 || right >= end_k - 1 - center ? end_k : center + right + 1;
    return {begin, smaller(end, end_k)};
  }
  /// The union over rows [first, last), last > first.
  Range of_rows(int64_t first, int64_t last) const { return {of_row(first).begin, of_row(last - 1).end}; }
};

inline Range intersect(Range a, Range b) { return {larger(a.begin, b.begin), smaller(a.end, b.end)}; }

/// Task t of `count` neighbours: the outermost ones first, in pairs, so that under a causal mask an even cut of the
/// tasks is an even cut of the work.
inline int64_t balanced(int64_t t, int64_t count) { return t % 2 == 0 ? t / 2 : count - 1 - t / 2; }

/// Hands out parts of a buffer, 64-byte aligned; with a null base it only counts.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  float* floats(int64_t count) { return static_cast<float*>(bytes(count * static_cast<int64_t>(sizeof(float)))); }
  void* bytes(int64_t count) {
    void* result = base_ == nullptr ? nullptr : base_ + used_;
    used_ += round_up(count, 64);
    return result;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace strobe::cpu::STROBE_ISA
