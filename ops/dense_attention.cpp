#include "ops/dense_attention.h"

#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mul.h>

#include <limits>

#include "ops/device_call.h"
#include "ops/rng.h"
#include "ops/selection.h"
#include "strobe/dropout.h"

namespace strobe::ops {
namespace {

/// [B, N, Hk * G, D] -> [B * Hk, G * N, D], contiguous: the query heads of one key head side by side, so that no key is
/// repeated and the sums over the group happen inside one matrix product.
at::Tensor fold_heads(const at::Tensor& x, int64_t heads_k) {
  const int64_t batch = x.size(0), rows = x.size(1), group = x.size(2) / heads_k, dim = x.size(3);
  return x.unflatten(2, {heads_k, group}).permute({0, 2, 3, 1, 4}).reshape({batch * heads_k, group * rows, dim});
}

/// The inverse: [B * Hk, G * N, D] -> [B, N, Hk * G, D].
at::Tensor unfold_heads(const at::Tensor& x, const AttentionSizes& s, int64_t rows, int64_t heads) {
  return x.view({s.batch, heads, rows, x.size(2)}).transpose(1, 2);
}

/// Rows [B, N, H, D] that are hidden become 0, whatever they hold.
at::Tensor clear_rows(const at::Tensor& x, const at::Tensor& hidden) {
  return hidden.defined() ? x.masked_fill(hidden.unsqueeze(-1).unsqueeze(-1), 0) : x;
}

/// S, [B, Hq, Nq, Nk], masked: rows that see nothing are left as they are, finite, and their results are cleared.
at::Tensor masked_scores(const DenseCall& call) {
  at::Tensor scores = call.by_head(scaled_product(call.q, call.k.transpose(1, 2), call.scale));
  if (call.visible.hidden.defined()) {
    scores.masked_fill_(call.visible.hidden, -std::numeric_limits<double>::infinity());
  }
  return scores;
}

/// The factors of dropout, fp32 [B, Hq, Nq, Nk]: 0 or 65536 / threshold.
at::Tensor dropout_factors(const AttentionOptions& options, const AttentionSizes& s, const at::Tensor& rng_state) {
  const at::Tensor mask =
      at::empty({s.batch, s.num_heads_q, s.seqlen_q, s.seqlen_k}, rng_state.options().dtype(at::kFloat));
  DropoutMaskParams params{.device = library_device(rng_state),
                           .seqlen_q = s.seqlen_q,
                           .seqlen_k = s.seqlen_k,
                           .dropout_p = options.dropout_p,
                           .rng_state = rng_words(rng_state),
                           .stream = current_stream(rng_state)};
  const auto write_heads = [&](int64_t begin, int64_t end) {
    DropoutMaskParams part = params;
    part.head_begin = begin;
    part.num_heads = end - begin;
    part.mask = mask.mutable_data_ptr<float>() + begin * s.seqlen_q * s.seqlen_k;
    translate_errors([&] { strobe::dropout_mask(part); });
  };
  const int64_t heads = s.batch * s.num_heads_q;
  if (rng_state.is_cpu()) {
    const int64_t heads_a_task = at::divup(at::internal::GRAIN_SIZE, std::max<int64_t>(1, s.seqlen_q * s.seqlen_k));
    at::parallel_for(0, heads, heads_a_task, write_heads);
  } else {
    write_heads(0, heads);
  }
  return mask;
}

/// x * factors rounded once to x's dtype.
at::Tensor dropped(const at::Tensor& x, const at::Tensor& factors) {
  at::Tensor result = at::empty_like(x);
  return at::mul_out(result, x, factors);
}

/// softmax_lse [B, Hq, Nq] of the masked scores.
at::Tensor log_sum_exp(const DenseCall& call, const at::Tensor& scores) {
  at::Tensor lse = at::logsumexp(scores.to(lse_dtype(scores)), {-1});
  if (call.visible.hidden_rows.defined()) {
    lse.masked_fill_(call.hidden_rows_by_head(), -std::numeric_limits<double>::infinity());
  }
  return lse;
}

/// dS = P * (dP * factors - sum_j P * dP * factors + dLSE)
at::Tensor score_gradient(const DenseCall& call, const at::Tensor& grad_out, const OptionalTensor& grad_lse,
                          const at::Tensor& probs, const at::Tensor& factors, const Selection& select) {
  at::Tensor grad_probs = call.by_head(at::bmm(grad_out, call.v.transpose(1, 2)));
  select.clear_hidden(grad_probs);
  if (factors.defined()) grad_probs.mul_(factors);
  at::Tensor grad_scores = at::_softmax_backward_data(grad_probs, probs, -1, probs.scalar_type());
  if (grad_lse) {
    at::Tensor grad = grad_lse->unsqueeze(-1);
    if (call.visible.hidden_rows.defined()) grad = grad.masked_fill(call.hidden_rows_by_head().unsqueeze(-1), 0);
    grad_scores.addcmul_(probs, grad.to(probs.scalar_type()));
  }
  select.clear_hidden(grad_scores);
  return grad_scores;
}

DenseForward forward_with(const AttentionOptions& options, const DenseCall& call, const at::Tensor& rng_state,
                          const Selection& select) {
  const AttentionSizes& s = call.sizes;
  DenseForward result;
  at::Tensor scores = masked_scores(call);
  if (options.return_lse) result.softmax_lse = log_sum_exp(call, scores);
  result.probs = at::_softmax(scores, -1, /*half_to_float=*/false);
  scores.reset();
  select.clear_hidden(result.probs);
  const at::Tensor weights =
      options.dropout_p > 0 ? dropped(result.probs, dropout_factors(options, s, rng_state)) : result.probs;
  const at::Tensor out = select.product(call.folded(weights), call.v);
  result.out = clear_rows(unfold_heads(out, s, s.seqlen_q, s.num_heads_q), call.visible.hidden_rows);
  return result;
}

Tensor3 backward_with(const AttentionOptions& options, const DenseCall& call, const at::Tensor& grad_out_given,
                      const OptionalTensor& grad_lse, const at::Tensor& probs, const Selection& select) {
  const AttentionSizes& s = call.sizes;
  const at::Tensor grad_out = fold_heads(clear_rows(grad_out_given, call.visible.hidden_rows), s.num_heads_k);
  at::Tensor factors;
  if (options.dropout_p > 0) factors = dropout_factors(options, s, *options.rng_state);
  const at::Tensor weights = factors.defined() ? dropped(probs, factors) : probs;
  const at::Tensor grad_v = select.transposed_product(call.folded(weights), grad_out);
  const at::Tensor grad_scores = call.folded(score_gradient(call, grad_out, grad_lse, probs, factors, select));
  const at::Tensor grad_q = select.product(grad_scores, call.k, call.scale);
  const at::Tensor grad_k = select.transposed_product(grad_scores, call.q, call.scale);
  return {clear_rows(unfold_heads(grad_q, s, s.seqlen_q, s.num_heads_q), call.visible.hidden_rows),
          clear_rows(unfold_heads(grad_k, s, s.seqlen_k, s.num_heads_k), call.visible.hidden_keys),
          clear_rows(unfold_heads(grad_v, s, s.seqlen_k, s.num_heads_k), call.visible.hidden_keys)};
}

}  // namespace

DenseCall::DenseCall(const AttentionOptions& options, const AttentionSizes& s, const at::Tensor& q_dense,
                     const at::Tensor& k_dense, const at::Tensor& v_dense, const at::Tensor& lengths_q,
                     const at::Tensor& lengths_k)
    : sizes(s),
      visible(visibility(options, s, lengths_q, lengths_k, q_dense.device())),
      scale(softmax_scale(options, s.head_dim)),
      q(fold_heads(clear_rows(q_dense, visible.hidden_rows), s.num_heads_k)),
      k(fold_heads(clear_rows(k_dense, visible.hidden_keys), s.num_heads_k)),
      v(fold_heads(clear_rows(v_dense, visible.hidden_keys), s.num_heads_k)) {}

DenseForward dense_forward(const AttentionOptions& options, const DenseCall& call, const at::Tensor& rng_state) {
  const DenseForward result = forward_with(options, call, rng_state, Selection());
  if (!Selection::needed(call.visible, result.out)) return result;
  return forward_with(options, call, rng_state, Selection(call.visible, call.sizes));
}

Tensor3 dense_backward(const AttentionOptions& options, const DenseCall& call, const at::Tensor& grad_out,
                       const OptionalTensor& grad_lse, const at::Tensor& probs) {
  const Tensor3 result = backward_with(options, call, grad_out, grad_lse, probs, Selection());
  const auto& [grad_q, grad_k, grad_v] = result;
  if (!Selection::needed(call.visible, {grad_q, grad_k, grad_v})) return result;
  return backward_with(options, call, grad_out, grad_lse, probs, Selection(call.visible, call.sizes));
}

}  // namespace strobe::ops
