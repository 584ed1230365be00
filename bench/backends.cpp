#include "bench/backends.h"

#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>

#include "ops/attention.h"

namespace strobe::bench {
namespace {

AttentionBackend ours(const std::string& attn_type) {
  return {attn_type, [attn_type](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal) {
            ops::AttentionOptions options;
            options.attn_type = attn_type;
            options.causal = causal;
            return std::get<0>(ops::attention(q, k, v, options));
          }};
}

/// ATen's operators take and give [B, H, N, D].
template <class Operator>
AttentionBackend atens(const std::string& name, const Operator& op) {
  return {name, [op](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal) {
            return std::get<0>(op(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), causal)).transpose(1, 2);
          }};
}

using T = at::Tensor;

AttentionBackend flash_cpu() {
  return atens("sdpa_flash", [](const T& q, const T& k, const T& v, bool causal) {
    return at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, /*dropout_p=*/0.0, causal);
  });
}

AttentionBackend flash_cuda() {
  return atens("sdpa_flash", [](const T& q, const T& k, const T& v, bool causal) {
    return at::_scaled_dot_product_flash_attention(q, k, v, /*dropout_p=*/0.0, causal);
  });
}

AttentionBackend cudnn() {
  return atens("sdpa_cudnn", [](const T& q, const T& k, const T& v, bool causal) {
    return at::_scaled_dot_product_cudnn_attention(q, k, v, /*attn_bias=*/std::nullopt, /*compute_log_sumexp=*/true,
                                                   /*dropout_p=*/0.0, causal);
  });
}

AttentionBackend efficient() {
  return atens("sdpa_efficient", [](const T& q, const T& k, const T& v, bool causal) {
    return at::_scaled_dot_product_efficient_attention(q, k, v, /*attn_bias=*/std::nullopt,
                                                       /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, causal);
  });
}

AttentionBackend math() {
  return atens("sdpa_math", [](const T& q, const T& k, const T& v, bool causal) {
    return at::_scaled_dot_product_attention_math(q, k, v, /*attn_mask=*/std::nullopt, /*dropout_p=*/0.0, causal);
  });
}

}  // namespace

std::vector<AttentionBackend> attention_backends(at::DeviceType device) {
  std::vector<AttentionBackend> result{ours("dotscale"), ours("flash_attn"), ours("imp_flash_attn")};
  if (device == at::kCPU) {
    result.push_back(flash_cpu());
  } else {
    result.push_back(flash_cuda());
    result.push_back(cudnn());
    result.push_back(efficient());
  }
  result.push_back(math());
  return result;
}

}  // namespace strobe::bench
