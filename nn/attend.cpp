#include "nn/attend.h"

namespace strobe::nn {
namespace {

std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

}  // namespace

ops::AttentionOptions attention_options(const std::string& attn_type, double dropout, const Sequences& queries,
                                        const Sequences& keys) {
  ops::AttentionOptions options;
  options.attn_type = attn_type;
  options.dropout_p = dropout;
  options.deterministic = true;
  options.query_lengths = if_defined(queries.lengths);
  options.cu_seqlens_q = if_defined(queries.cu_seqlens);
  if (queries.packed()) options.max_seqlen_q = queries.longest;
  options.key_lengths = if_defined(keys.lengths);
  options.cu_seqlens_k = if_defined(keys.cu_seqlens);
  if (keys.packed()) options.max_seqlen_k = keys.longest;
  return options;
}

at::Tensor split_heads(const at::Tensor& x, int64_t heads) { return x.unflatten(-1, {heads, x.size(-1) / heads}); }

at::Tensor attend(const at::Tensor& qkv, int64_t heads, const ops::AttentionOptions& options) {
  return std::get<0>(ops::attention_qkvpacked(split_heads(qkv, 3 * heads), heads, options)).flatten(-2);
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& kv, int64_t heads, const ops::AttentionOptions& options) {
  return std::get<0>(ops::attention_kvpacked(split_heads(q, heads), split_heads(kv, 2 * heads), options)).flatten(-2);
}

}  // namespace strobe::nn
