#include "ops/checks.h"

#include <c10/util/Exception.h>

#include <cmath>

#include "strobe/dropout.h"

namespace strobe::ops {
namespace {

#define STROBE_CHECK(condition, argument, ...) \
  TORCH_CHECK(condition, "strobe::attention: ", argument, ": expected ", __VA_ARGS__)

void check_tensor(const char* name, const at::Tensor& t, const at::Tensor& q, bool varlen) {
  STROBE_CHECK(t.dim() == (varlen ? 3 : 4), name, varlen ? "[total, H, D] beside cu_seqlens" : "[B, N, H, D]",
               ", found ", t.dim(), " dimensions");
  STROBE_CHECK(t.device() == q.device(), name, "a tensor on q's device ", q.device(), ", found ", t.device());
  STROBE_CHECK(t.scalar_type() == q.scalar_type(), name, "q's dtype ", q.scalar_type(), ", found ", t.scalar_type());
}

void check_size(const char* name, const at::Tensor& t, int64_t dim, const char* meaning, const c10::SymInt& expected) {
  STROBE_CHECK(t.sym_size(dim) == expected, name, meaning, " ", expected, " in dimension ", dim, ", found ",
               t.sym_sizes());
}

void check_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool varlen) {
  check_tensor("q", q, q, varlen);
  check_tensor("k", k, q, varlen);
  check_tensor("v", v, q, varlen);
  if (!varlen) check_size("k", k, 0, "q's batch size", q.sym_size(0));
  check_size("k", k, -1, "q's head_dim", q.sym_size(-1));
  STROBE_CHECK(q.sym_size(-1) >= 1, "q", "a head_dim of at least 1, found ", q.sym_sizes());
  for (int64_t dim = 0; dim < k.dim(); ++dim) check_size("v", v, dim, "k's size", k.sym_size(dim));
  const c10::SymInt heads_q = q.sym_size(-2), heads_k = k.sym_size(-2);
  STROBE_CHECK(heads_k >= 1, "k", "at least 1 head, found ", k.sym_sizes());
  STROBE_CHECK(heads_q >= 1 && heads_q % heads_k == 0, "q", "a multiple of k's ", heads_k, " heads, found ", heads_q);
}

void check_int_vector(const char* name, const OptionalTensor& t, const at::Tensor& q) {
  if (!t) return;
  STROBE_CHECK(t->scalar_type() == at::kInt, name, "int32, found ", t->scalar_type());
  STROBE_CHECK(t->dim() == 1, name, "1 dimension, found ", t->dim());
  STROBE_CHECK(t->device() == q.device(), name, "a tensor on q's device ", q.device(), ", found ", t->device());
}

void check_lengths(const AttentionOptions& o, const at::Tensor& q) {
  check_int_vector("key_lengths", o.key_lengths, q);
  check_int_vector("query_lengths", o.query_lengths, q);
  check_int_vector("cu_seqlens_q", o.cu_seqlens_q, q);
  check_int_vector("cu_seqlens_k", o.cu_seqlens_k, q);
  if (is_varlen(o)) {
    STROBE_CHECK(!o.key_lengths, "key_lengths", "None beside cu_seqlens, found a tensor");
    STROBE_CHECK(!o.query_lengths, "query_lengths", "None beside cu_seqlens, found a tensor");
    STROBE_CHECK(o.cu_seqlens_q->sym_size(0) >= 1, "cu_seqlens_q", "[B+1], found no element");
    check_size("cu_seqlens_k", *o.cu_seqlens_k, 0, "cu_seqlens_q's size", o.cu_seqlens_q->sym_size(0));
  } else {
    if (o.key_lengths) check_size("key_lengths", *o.key_lengths, 0, "q's batch size", q.sym_size(0));
    if (o.query_lengths) check_size("query_lengths", *o.query_lengths, 0, "q's batch size", q.sym_size(0));
  }
}

void check_numbers(const AttentionOptions& o) {
  STROBE_CHECK(!o.softmax_scale || (std::isfinite(*o.softmax_scale) && *o.softmax_scale > 0), "softmax_scale",
               "a finite number > 0, found ", o.softmax_scale.value_or(0));
  STROBE_CHECK(o.window_left >= -1, "window_left", "-1 or more, found ", o.window_left);
  STROBE_CHECK(o.window_right >= -1, "window_right", "-1 or more, found ", o.window_right);
  STROBE_CHECK(o.dropout_p >= 0 && o.dropout_p < 1 && dropout_threshold(o.dropout_p) >= 1, "dropout_p",
               "0 <= dropout_p < 1 with round((1 - dropout_p) * 65536) at least 1, found ", o.dropout_p);
}

void check_rng_state(const AttentionOptions& o, const at::Tensor& q) {
  if (!o.rng_state || o.dropout_p == 0) return;
  const at::Tensor& state = *o.rng_state;
  STROBE_CHECK(state.scalar_type() == at::kLong && state.dim() == 1 && state.sym_size(0) == 2, "rng_state",
               "[2] int64 {seed, offset}, found ", state.sym_sizes(), " ", state.scalar_type());
  STROBE_CHECK(state.device() == q.device(), "rng_state", "a tensor on q's device ", q.device(), ", found ",
               state.device());
}

void check_dtype(AttnType type, const at::Tensor& q) {
  const at::ScalarType dtype = q.scalar_type();
  if (type == AttnType::kDotscale) {
    STROBE_CHECK(dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16, "q",
                 "a floating dtype for dotscale, found ", dtype);
  } else {
    STROBE_CHECK(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16, "q",
                 "float32, float16 or bfloat16, found ", dtype);
  }
}

/// The longest sequence; cu_seqlens on the CPU.
int64_t longest(const at::Tensor& cu_seqlens) {
  const at::Tensor values = cu_seqlens.contiguous();
  const int32_t* cu = values.const_data_ptr<int32_t>();
  int64_t result = 0;
  for (int64_t b = 0; b + 1 < values.numel(); ++b) result = std::max(result, int64_t{cu[b + 1]} - cu[b]);
  return result;
}

int64_t max_seqlen(const char* name, const std::optional<c10::SymInt>& given, const at::Tensor& cu_seqlens) {
  if (given) {
    const int64_t value = given->guard_int(__FILE__, __LINE__);
    STROBE_CHECK(value >= 0, name, "0 or more, found ", value);
    return value;
  }
  STROBE_CHECK(cu_seqlens.is_cpu(), name, "a number (on the CPU alone it can be derived), found None");
  return longest(cu_seqlens);
}

void check_cu_seqlens_values(const char* name, const at::Tensor& cu_seqlens, int64_t longest, int64_t total) {
  const at::Tensor values = cu_seqlens.contiguous();
  const int32_t* cu = values.const_data_ptr<int32_t>();
  const int64_t batch = values.numel() - 1;
  STROBE_CHECK(cu[0] == 0, name, "a first value of 0, found ", cu[0]);
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = int64_t{cu[b + 1]} - cu[b];
    STROBE_CHECK(length >= 0 && length <= longest, name, "sequences of 0 to max_seqlen = ", longest, " tokens, found ",
                 length, " for sequence ", b);
  }
  STROBE_CHECK(cu[batch] <= total, name, "a last value of at most ", total, " tokens, found ", cu[batch]);
}

}  // namespace

bool is_varlen(const AttentionOptions& options) { return options.cu_seqlens_q || options.cu_seqlens_k; }

AttnType check_attention(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v) {
  const AttnType type = parse_attn_type(options.attn_type);
  STROBE_CHECK(options.cu_seqlens_q.has_value() == options.cu_seqlens_k.has_value(),
               options.cu_seqlens_q ? "cu_seqlens_k" : "cu_seqlens_q", "both cu_seqlens or neither, found one");
  check_shapes(q, k, v, is_varlen(options));
  check_dtype(type, q);
  check_lengths(options, q);
  check_numbers(options);
  check_rng_state(options, q);
  return type;
}

void check_gradients(const AttentionOptions& options, const at::Tensor& grad_out,
                     const OptionalTensor& grad_softmax_lse, const at::Tensor& q) {
  check_tensor("grad_out", grad_out, q, is_varlen(options));
  for (int64_t dim = 0; dim < q.dim(); ++dim) check_size("grad_out", grad_out, dim, "q's size", q.sym_size(dim));
  STROBE_CHECK(options.dropout_p == 0 || options.rng_state, "rng_state",
               "the forward's with dropout_p > 0, found None");
  if (!grad_softmax_lse) return;
  STROBE_CHECK(grad_softmax_lse->scalar_type() == lse_dtype(q), "grad_softmax_lse", lse_dtype(q), ", found ",
               grad_softmax_lse->scalar_type());
  STROBE_CHECK(grad_softmax_lse->sym_sizes() == c10::SymIntArrayRef(lse_shape(q)), "grad_softmax_lse",
               c10::SymIntArrayRef(lse_shape(q)), ", found ", grad_softmax_lse->sym_sizes());
}

AttentionSizes attention_sizes(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k) {
  AttentionSizes s;
  s.varlen = is_varlen(options);
  s.num_heads_q = q.size(-2);
  s.num_heads_k = k.size(-2);
  s.head_dim = q.size(-1);
  if (s.varlen) {
    s.batch = options.cu_seqlens_q->size(0) - 1;
    s.total_q = q.size(0);
    s.total_k = k.size(0);
    s.seqlen_q = max_seqlen("max_seqlen_q", options.max_seqlen_q, *options.cu_seqlens_q);
    s.seqlen_k = max_seqlen("max_seqlen_k", options.max_seqlen_k, *options.cu_seqlens_k);
  } else {
    s.batch = q.size(0);
    s.seqlen_q = q.size(1);
    s.seqlen_k = k.size(1);
  }
  return s;
}

void check_cu_seqlens(const AttentionOptions& options, const AttentionSizes& sizes) {
  if (!options.cu_seqlens_q->is_cpu()) return;
  check_cu_seqlens_values("cu_seqlens_q", *options.cu_seqlens_q, sizes.seqlen_q, sizes.total_q);
  check_cu_seqlens_values("cu_seqlens_k", *options.cu_seqlens_k, sizes.seqlen_k, sizes.total_k);
}

double softmax_scale(const AttentionOptions& options, int64_t head_dim) {
  return options.softmax_scale.value_or(1.0 / std::sqrt(static_cast<double>(head_dim)));
}

c10::SymDimVector lse_shape(const at::Tensor& q) {
  if (q.dim() == 3) return {q.sym_size(1), q.sym_size(0)};
  return {q.sym_size(0), q.sym_size(2), q.sym_size(1)};
}

at::ScalarType lse_dtype(const at::Tensor& q) { return q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

std::array<at::Tensor, 3> split_qkv(const at::Tensor& qkv, int64_t num_heads_q) {
  STROBE_CHECK(qkv.dim() == 3 || qkv.dim() == 4, "qkv", "[B, N, Hq + 2 Hk, D] or [total, Hq + 2 Hk, D], found ",
               qkv.dim(), " dimensions");
  const c10::SymInt heads = qkv.sym_size(-2), heads_k = (heads - num_heads_q) / 2;
  STROBE_CHECK(num_heads_q >= 1 && heads_k >= 1 && num_heads_q + 2 * heads_k == heads, "num_heads_q",
               "Hq with Hq + 2 Hk = ", heads, " heads in qkv, found ", num_heads_q);
  return {qkv.narrow(-2, 0, num_heads_q), qkv.narrow_symint(-2, num_heads_q, heads_k),
          qkv.narrow_symint(-2, heads_k + num_heads_q, heads_k)};
}

std::array<at::Tensor, 2> split_kv(const at::Tensor& kv) {
  STROBE_CHECK(kv.dim() == 3 || kv.dim() == 4, "kv", "[B, Nk, 2 Hk, D] or [total_k, 2 Hk, D], found ", kv.dim(),
               " dimensions");
  const c10::SymInt heads = kv.sym_size(-2);
  STROBE_CHECK(heads >= 2 && heads % 2 == 0, "kv", "an even number of heads, found ", heads);
  return {kv.narrow_symint(-2, 0, heads / 2), kv.narrow_symint(-2, heads / 2, heads / 2)};
}

}  // namespace strobe::ops
