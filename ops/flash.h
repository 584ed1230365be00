// The flash types: tensors in, a call of the kernel library, tensors out.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/attention.h"
#include "ops/inner.h"
#include "strobe/attention.h"

namespace strobe::ops {

/// What a device adds to a call.
struct Execution {
  Device device = Device::kCPU;
  void* stream = nullptr;  // cudaStream_t
  int num_threads = 1;
  ParallelFor parallel_for{};
};

/// -> out, softmax_lse, rng_state. q, k and v have passed check_attention.
Tensor3 flash_forward(const Execution& execution, const AttentionOptions& options, const at::Tensor& q,
                      const at::Tensor& k, const at::Tensor& v);

/// Where the gradients go: tensors like q, k and v, of any strides that the library takes (views of a packed tensor).
struct Gradients {
  at::Tensor q, k, v;
};

void flash_backward(const Execution& execution, const AttentionOptions& options, const at::Tensor& grad_out,
                    const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v, const at::Tensor& out, const at::Tensor& softmax_lse,
                    const Gradients& gradients);

}  // namespace strobe::ops
