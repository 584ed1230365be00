#include "bench/attention.h"

#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <memory>

#include "bench/backends.h"
#include "bench/memory.h"
#include "ops/attn_type.h"
#include "train/device.h"

namespace strobe::bench {
namespace {

/// The tensors that all backends share.
struct Inputs {
  at::Tensor q, k, v;   // [B, N, H, D], views of one [B, N, 3 H, D]
  at::Tensor grad_out;  // [B, N, H, D]
};

Inputs make_inputs(const AttentionShape& s, at::ScalarType dtype, at::Device device) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  const at::Tensor qkv = at::randn({s.batch, s.seqlen, 3 * s.num_heads, s.head_dim}, options).requires_grad_();
  return {qkv.narrow(2, 0, s.num_heads), qkv.narrow(2, s.num_heads, s.num_heads),
          qkv.narrow(2, 2 * s.num_heads, s.num_heads),
          at::randn({s.batch, s.seqlen, s.num_heads, s.head_dim}, options)};
}

Contender contender(const AttentionBackend& backend, const Inputs& inputs, bool causal) {
  const auto out = std::make_shared<at::Tensor>();
  const auto fwd = [=] { *out = backend.run(inputs.q, inputs.k, inputs.v, causal); };
  // Down to q, k and v, not to their packed projection: what backends without a packed gradient pay there is not
  // attention.
  const auto bwd = [=] {
    const auto gradients = torch::autograd::grad({*out}, {inputs.q, inputs.k, inputs.v}, {inputs.grad_out});
    out->reset();
  };
  return {backend.name, {{"fwd", fwd}, {"bwd", bwd}}};
}

bool is_ours(const std::string& backend) {
  return std::find(ops::kAttnTypeNames.begin(), ops::kAttnTypeNames.end(), backend) != ops::kAttnTypeNames.end();
}

std::vector<Contender> contenders(const AttentionBenchOptions& options, const Inputs& inputs) {
  std::vector<Contender> result;
  for (const AttentionBackend& backend : attention_backends(options.device.type())) {
    if (!options.attn_type.empty() && is_ours(backend.name) && backend.name != options.attn_type) continue;
    result.push_back(contender(backend, inputs, options.causal));
  }
  return result;
}

std::vector<AttentionRow> rows(const AttentionBenchOptions& options, const AttentionShape& shape,
                               const std::vector<ContenderResult>& results) {
  std::vector<AttentionRow> all;
  for (const std::string direction : {"fwd", "bwd"}) {
    for (const ContenderResult& result : results) {
      AttentionRow row{shape, options.dtype, options.causal, result.name, direction, result.status, result.why, {}, 0};
      for (const PhaseResult& phase : result.phases) {
        if (phase.name != direction) continue;
        row.ms = phase.ms;
        row.peak_mib = phase.peak_mib;
      }
      all.push_back(std::move(row));
    }
  }
  return all;
}

/// Where not even the inputs fit, every backend's rows say so.
std::vector<ContenderResult> measure_shape(const AttentionBenchOptions& options, const AttentionShape& shape) {
  try {
    const Inputs inputs = make_inputs(shape, options.dtype, options.device);
    return measure(contenders(options, inputs), options.budget, options.device);
  } catch (const std::exception& error) {
    if (!train::is_out_of_memory(error)) throw;
  }
  std::vector<ContenderResult> results;
  for (const Contender& each : contenders(options, Inputs())) {
    results.push_back({each.name, ContenderResult::Status::kOutOfMemory, "", {}});
  }
  return results;
}

}  // namespace

double attention_flops(const AttentionShape& s, bool causal, const std::string& direction) {
  const double n = static_cast<double>(s.seqlen);
  const double pairs = causal ? n * (n + 1) / 2 : n * n;
  const double forward = 4.0 * static_cast<double>(s.head_dim) * pairs * static_cast<double>(s.batch * s.num_heads);
  return direction == "fwd" ? forward : 2.5 * forward;
}

void bench_attention(const AttentionBenchOptions& options,
                     const std::function<void(const std::vector<AttentionRow>&)>& done) {
  std::unique_ptr<MemoryLimit> limit;
  if (options.device.is_cpu()) limit = std::make_unique<MemoryLimit>();
  for (const AttentionShape& shape : options.shapes) done(rows(options, shape, measure_shape(options, shape)));
}

}  // namespace strobe::bench
