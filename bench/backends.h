// The implementations of attention that are measured, each pinned by its operator.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace strobe::bench {

/// q, k, v [B, N, H, D] of any strides -> out [B, N, H, D]; differentiable.
using AttentionFunction =
    std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal)>;

struct AttentionBackend {
  std::string name;
  AttentionFunction run;
};

/// "dotscale", "flash_attn", "imp_flash_attn": ours. Then ATen's: "sdpa_flash", "sdpa_math", on CUDA also "sdpa_cudnn"
/// and "sdpa_efficient"; on the CPU "sdpa_flash" is ATen's own.
std::vector<AttentionBackend> attention_backends(at::DeviceType device);

}  // namespace strobe::bench
