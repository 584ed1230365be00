#include "nn/attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <algorithm>

#include "nn/attend.h"
#include "nn/init.h"
#include "strobe/types.h"

namespace strobe::nn {
namespace {

constexpr int64_t kCacheStart = 16;  // tokens; doubled whenever it is full

ops::AttentionOptions options_of(const AttentionConfig& config, bool training, const Sequences& queries = {},
                                 const Sequences& keys = {}) {
  return attention_options(config.attn_type, training ? config.dropout : 0.0, queries, keys);
}

const AttentionConfig& checked(const AttentionConfig& config) {
  if (config.num_heads < 1 || config.d_model < 1 || config.d_model % config.num_heads != 0) {
    throw Error("attention: num_heads must divide d_model " + std::to_string(config.d_model) + ", got " +
                std::to_string(config.num_heads));
  }
  return config;
}

}  // namespace

at::Tensor KeyValueCache::append(const at::Tensor& kv) {
  const int64_t capacity = storage_.defined() ? storage_.size(1) : 0;
  if (length_ == capacity) {
    at::Tensor larger =
        at::empty({kv.size(0), std::max(kCacheStart, 2 * capacity), kv.size(1), kv.size(2)}, kv.options());
    if (length_ > 0) larger.narrow(1, 0, length_).copy_(storage_);
    storage_ = larger;
  }
  storage_.select(1, length_).copy_(kv);
  ++length_;
  return storage_.narrow(1, 0, length_);
}

void KeyValueCache::reorder(const at::Tensor& rows) {
  if (length_ == 0) return;
  at::Tensor reordered =
      at::empty({rows.size(0), storage_.size(1), storage_.size(2), storage_.size(3)}, storage_.options());
  at::Tensor used = reordered.narrow(1, 0, length_);
  at::index_select_out(used, storage_.narrow(1, 0, length_), 0, rows);
  storage_ = reordered;
}

SelfAttentionImpl::SelfAttentionImpl(const AttentionConfig& config)
    : config_(checked(config)), qkv_(config.d_model, 3 * config.d_model), out_(config.d_model, config.d_model) {
  register_module("qkv", qkv_);
  register_module("out", out_);
  for (const at::Tensor& projection : qkv_->weight.chunk(3)) xavier_uniform_(projection);
  xavier_uniform_(out_->weight);
}

at::Tensor SelfAttentionImpl::heads(const at::Tensor& x, const Sequences& sequences, bool causal) {
  ops::AttentionOptions options = options_of(config_, is_training(), sequences, sequences);
  options.causal = causal;
  return attend(qkv_->forward(x), config_.num_heads, options);
}

at::Tensor SelfAttentionImpl::step(const at::Tensor& x, KeyValueCache& cache) {
  const at::Tensor qkv = split_heads(qkv_->forward(x).unsqueeze(1), 3 * config_.num_heads);
  const at::Tensor q = qkv.narrow(2, 0, config_.num_heads);
  const at::Tensor kv = cache.append(qkv.select(1, 0).narrow(1, config_.num_heads, 2 * config_.num_heads));
  return std::get<0>(ops::attention_kvpacked(q, kv, options_of(config_, is_training()))).flatten(1);
}

CrossAttentionImpl::CrossAttentionImpl(const AttentionConfig& config)
    : config_(checked(config)),
      q_(config.d_model, config.d_model),
      kv_(config.d_model, 2 * config.d_model),
      out_(config.d_model, config.d_model) {
  register_module("q", q_);
  register_module("kv", kv_);
  register_module("out", out_);
  for (const at::Tensor& projection : kv_->weight.chunk(2)) xavier_uniform_(projection);
  for (const Linear& linear : {q_, out_}) xavier_uniform_(linear->weight);
}

at::Tensor CrossAttentionImpl::keys_values(const at::Tensor& memory) {
  return split_heads(kv_->forward(memory), 2 * config_.num_heads);
}

at::Tensor CrossAttentionImpl::heads(const at::Tensor& x, const Sequences& queries, const at::Tensor& keys_values,
                                     const Sequences& keys) {
  const at::Tensor q = split_heads(q_->forward(x), config_.num_heads);
  const auto options = options_of(config_, is_training(), queries, keys);
  return std::get<0>(ops::attention_kvpacked(q, keys_values, options)).flatten(-2);
}

}  // namespace strobe::nn
