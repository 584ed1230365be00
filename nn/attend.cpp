#include "clip/model/attention_calls.h"

namespace strobe::clip {
namespace {

at::Tensor split_heads(const at::Tensor& x, int64_t heads) { return x.unflatten(-1, {heads, x.size(-1) / heads}); }

}  // namespace

ops::AttentionOptions attention_options(const std::string& attn_type) {
  ops::AttentionOptions options;
  options.attn_type = attn_type;
  options.deterministic = true;
  return options;
}

at::Tensor attention_of_product(const at::Tensor& qkv, int64_t heads, const ops::AttentionOptions& options) {
  return std::get<0>(ops::attention_qkvpacked(split_heads(qkv, 3 * heads), heads, options)).flatten(-2);
}

at::Tensor attention_of_products(const at::Tensor& q, const at::Tensor& kv, int64_t heads,
                                 const ops::AttentionOptions& options) {
  return std::get<0>(ops::attention_kvpacked(split_heads(q, heads), split_heads(kv, 2 * heads), options)).flatten(-2);
}

}  // namespace strobe::clip
