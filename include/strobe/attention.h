// Exact attention without the N x N matrix: out = dropout(softmax(softmax_scale * Q K^T + mask)) V, and its gradient.
//
// No framework: raw pointers, strides in elements, a stream. The library allocates nothing and never synchronises;
// scratch memory comes from the caller (attention_workspace_size). Algorithms: FlashAttention (Dao et al. 2022,
// arXiv 2205.14135, Algorithms 1 and 4) and FlashAttention-2 (Dao 2023, arXiv 2307.08691, Algorithms 1 and 2).
//
// Semantics, the same for every algorithm, device and layout
//   Visible keys. Row i of a sequence with Nq queries and Nk keys sees key j iff
//       i + Nk - Nq - window_left <= j <= i + Nk - Nq + window_right   and   0 <= j < Nk   and   j < key_lengths[b]
//     where -1 in a window means unlimited and causal means window_right = min(window_right, 0) with -1 read as
//     infinity. Nq and Nk are the tensor's lengths in the dense layout and each sequence's own in varlen: key_lengths
//     hides keys but moves no diagonal (unlike FlashAttention's seqused_k), so a right-padded decoder batch is right by
//     itself.
//   Padding. query_lengths[b]: rows i >= query_lengths[b] are not computed (O = 0, LSE = -inf, dQ = 0, no part in dK,
//   dV).
//     Hidden Q, K, V, dO may hold NaN or Inf without effect; NaN or Inf in what is visible reaches O, LSE and
//     gradients.
//   Varlen. cu_seqlens_q and cu_seqlens_k [B+1], both or neither: sequence b holds tokens
//   cu_seqlens[b]..cu_seqlens[b+1]-1.
//     Tokens at or beyond cu_seqlens[B] get O = 0, LSE = -inf and zero gradients.
//   Every output element is written, also for Nq = 0 or Nk = 0. A row with no visible key: O = 0, LSE = -inf, zero
//   gradients. softmax_lse is the natural log of the sum of exp of the scaled, masked scores, before dropout. Grouped
//   heads. Query head h uses key/value head h / (num_heads_q / num_heads_k). Dropout. See strobe/dropout.h: one
//   function of (seed, offset, batch, query head, row, column). In varlen, batch is the
//     sequence's number and row and column count from its start, so varlen equals dense.
//   Determinism. Equal inputs give bitwise equal outputs on one machine, whatever the number of threads and whatever
//     the other items of the batch; on CUDA the backward of kImpFlashAttn needs `deterministic` for that, and the
//     bounds seqlen_q and seqlen_k of varlen must be equal too, since they choose the kernel.
//   Accumulation and softmax are fp32; gradients have the input's dtype.
//   Head dims: multiples of 8 up to 128, and 256. Base pointers and strides of q, k, v, out and the gradients are
//     multiples of 16 bytes. Strides are not negative, those of what is written at least D; the stride of a dimension
//     of one element is not looked at.
//   Not offered: additive bias and ALiBi, softcap, a different head dim of V, paged caches, attention weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "strobe/types.h"

namespace strobe {

enum class Algorithm {
  kFlashAttn,     // FlashAttention as published in 2022: outer loop over K/V blocks, O rescaled at each step.
  kImpFlashAttn,  // FlashAttention-2, or the best kernel of the device for the shape.
};

/// Runs body(begin, end, worker) over a partition of [0, count) and returns when all of it has run. Calls may be
/// concurrent; no two concurrent calls share a `worker`, 0 <= worker < num_threads of the params.
using ParallelFor =
    std::function<void(int64_t count, const std::function<void(int64_t begin, int64_t end, int worker)>& body)>;

/// The forward call. Tensors are [B, N, H, D] in the dense layout and [total, H, D] in varlen; strides are in elements,
/// the last dimension is contiguous, so packed QKV, packed KV and [B, H, N, D] need no copy.
struct AttentionFwdParams {
  Device device = Device::kCPU;
  DType dtype = DType::kFloat32;  // of q, k, v, out. CPU: fp32, bf16. CUDA: fp16, bf16.
  Algorithm algorithm = Algorithm::kImpFlashAttn;

  int64_t batch = 0;        // B, the number of sequences
  int64_t seqlen_q = 0;     // Nq; varlen: an upper bound of every sequence's length (max_seqlen_q)
  int64_t seqlen_k = 0;     // Nk; varlen: an upper bound (max_seqlen_k)
  int64_t total_q = 0;      // varlen: tokens in q, >= cu_seqlens_q[B]; dense: ignored
  int64_t total_k = 0;      // varlen: tokens in k and v, >= cu_seqlens_k[B]; dense: ignored
  int64_t num_heads_q = 0;  // Hq
  int64_t num_heads_k = 0;  // Hk, divides Hq
  int64_t head_dim = 0;     // D

  const void* q = nullptr;       // [B, Nq, Hq, D] or [total_q, Hq, D]
  const void* k = nullptr;       // [B, Nk, Hk, D] or [total_k, Hk, D]
  const void* v = nullptr;       // like k
  void* out = nullptr;           // like q
  float* softmax_lse = nullptr;  // [B, Hq, Nq] or [Hq, total_q], contiguous; required
  int64_t q_batch_stride = 0, q_row_stride = 0, q_head_stride = 0;  // batch strides are ignored in varlen
  int64_t k_batch_stride = 0, k_row_stride = 0, k_head_stride = 0;
  int64_t v_batch_stride = 0, v_row_stride = 0, v_head_stride = 0;
  int64_t out_batch_stride = 0, out_row_stride = 0, out_head_stride = 0;

  const int32_t* key_lengths = nullptr;    // [B] or null; dense only; values are clamped to 0..Nk
  const int32_t* query_lengths = nullptr;  // [B] or null; dense only; values are clamped to 0..Nq
  const int32_t* cu_seqlens_q = nullptr;   // [B+1] or null, non-decreasing from 0
  const int32_t* cu_seqlens_k = nullptr;   // [B+1] or null, non-decreasing from 0

  float softmax_scale = 0.0f;  // finite and > 0; the usual value is 1/sqrt(D)
  bool causal = false;
  int64_t window_left = -1;
  int64_t window_right = -1;

  double dropout_p = 0.0;               // probability of dropping, 0 <= p < 1
  const uint64_t* rng_state = nullptr;  // [2] = {seed, offset} in memory of `device`; required iff dropout_p > 0

  void* workspace = nullptr;  // attention_workspace_size bytes of `device`, 256-byte aligned, contents arbitrary
  void* stream = nullptr;     // cudaStream_t; CPU: ignored

  // CPU only.
  int num_threads = 1;         // how many `worker`s parallel_for may use; results do not depend on it
  ParallelFor parallel_for{};  // null: one thread
};

/// The backward call: the fields of the forward with the same meaning and values, what the forward wrote, and
/// gradients.
struct AttentionBwdParams {
  Device device = Device::kCPU;
  DType dtype = DType::kFloat32;  // of every tensor below but the LSE and its gradient
  Algorithm algorithm = Algorithm::kImpFlashAttn;

  int64_t batch = 0;
  int64_t seqlen_q = 0;
  int64_t seqlen_k = 0;
  int64_t total_q = 0;
  int64_t total_k = 0;
  int64_t num_heads_q = 0;
  int64_t num_heads_k = 0;
  int64_t head_dim = 0;

  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  const void* out = nullptr;                // as the forward wrote it
  const float* softmax_lse = nullptr;       // as the forward wrote it
  const void* grad_out = nullptr;           // like out
  const float* grad_softmax_lse = nullptr;  // like softmax_lse, or null for zero: dS = P * (dP - (delta - dLSE))
  void* grad_q = nullptr;                   // like q
  void* grad_k = nullptr;                   // like k; the group's sum, accumulated in fp32 and rounded once
  void* grad_v = nullptr;                   // like v; likewise
  int64_t q_batch_stride = 0, q_row_stride = 0, q_head_stride = 0;
  int64_t k_batch_stride = 0, k_row_stride = 0, k_head_stride = 0;
  int64_t v_batch_stride = 0, v_row_stride = 0, v_head_stride = 0;
  int64_t out_batch_stride = 0, out_row_stride = 0, out_head_stride = 0;
  int64_t grad_out_batch_stride = 0, grad_out_row_stride = 0, grad_out_head_stride = 0;
  int64_t grad_q_batch_stride = 0, grad_q_row_stride = 0, grad_q_head_stride = 0;
  int64_t grad_k_batch_stride = 0, grad_k_row_stride = 0, grad_k_head_stride = 0;
  int64_t grad_v_batch_stride = 0, grad_v_row_stride = 0, grad_v_head_stride = 0;

  const int32_t* key_lengths = nullptr;
  const int32_t* query_lengths = nullptr;
  const int32_t* cu_seqlens_q = nullptr;
  const int32_t* cu_seqlens_k = nullptr;

  float softmax_scale = 0.0f;
  bool causal = false;
  int64_t window_left = -1;
  int64_t window_right = -1;

  double dropout_p = 0.0;
  const uint64_t* rng_state = nullptr;  // the forward's

  bool deterministic = false;  // CUDA: bitwise repeatable gradients; the CPU always is

  void* workspace = nullptr;
  void* stream = nullptr;

  int num_threads = 1;
  ParallelFor parallel_for{};
};

/// Why the call cannot run here, one reason a line ("attention_forward: head_dim: expected a multiple of 8 up to 128,
/// or 256, got 12"), or an empty string if it can. Pointers to tensors may be null for this question; pointers whose
/// mere presence selects a feature (lengths, cu_seqlens, rng_state) count.
std::string attention_why_not(const AttentionFwdParams& params);
std::string attention_why_not(const AttentionBwdParams& params);

/// Bytes of scratch that the call needs; 0 is possible. Depends on the shape, the features and num_threads, not on
/// pointers. Throws strobe::Error where attention_why_not is not empty.
std::size_t attention_workspace_size(const AttentionFwdParams& params);
std::size_t attention_workspace_size(const AttentionBwdParams& params);

/// Computes out and softmax_lse. Throws strobe::Error (operation, argument, expected, found) and then has written
/// nothing.
void attention_forward(const AttentionFwdParams& params);

/// Computes grad_q, grad_k and grad_v. Throws like attention_forward.
void attention_backward(const AttentionBwdParams& params);

/// What the CPU kernels are running on: "generic", "avx2", "avx512" or "avx512_bf16". Throws where the environment
/// variable STROBE_CPU_ISA names one that this machine cannot run.
std::string cpu_instruction_set();

}  // namespace strobe
