#include "bench/attention.h"

#include <ATen/ops/randn.h>
#include <c10/core/ScalarType.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <memory>

#include "bench/backends.h"
#include "bench/memory.h"
#include "bench/report.h"
#include "ops/attn_type.h"
#include "train/device.h"

namespace strobe::bench {
namespace {

/// The tensors that all backends share.
struct Inputs {
  at::Tensor q, k, v;   // [B, N, H, D], views of one [B, N, 3 H, D]
  at::Tensor grad_out;  // [B, N, H, D]
};

Inputs make_inputs(const AttentionCase& which, at::Device device) {
  const AttentionShape& s = which.shape;
  const auto options = at::TensorOptions().dtype(which.dtype).device(device);
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

bool takes_part(const std::string& backend, const AttentionBenchOptions& options) {
  if (!is_ours(backend)) return options.peers;
  return options.attn_type.empty() || backend == options.attn_type;
}

std::vector<Contender> contenders(const AttentionBenchOptions& options, const Inputs& inputs, bool causal) {
  std::vector<Contender> result;
  for (const AttentionBackend& backend : attention_backends(options.device.type())) {
    if (takes_part(backend.name, options)) result.push_back(contender(backend, inputs, causal));
  }
  return result;
}

std::vector<AttentionRow> rows(const AttentionCase& which, at::Device device,
                               const std::vector<ContenderResult>& results) {
  std::vector<AttentionRow> all;
  for (const std::string direction : {"fwd", "bwd"}) {
    for (const ContenderResult& result : results) {
      AttentionRow row{which, result.name, direction, result.status, result.why, {}, {}, 0};
      for (const PhaseResult& phase : result.phases) {
        if (phase.name != direction) continue;
        row.ms = phase.ms;
        if (!device.is_cpu()) row.host_ms = phase.host_ms;
        row.peak_mib = phase.peak_mib;
      }
      all.push_back(std::move(row));
    }
  }
  return all;
}

/// Where not even the inputs fit, every backend's rows say so.
std::vector<ContenderResult> measure_case(const AttentionBenchOptions& options, const AttentionCase& which) {
  try {
    const Inputs inputs = make_inputs(which, options.device);
    return measure(contenders(options, inputs, which.causal), options.budget, options.device);
  } catch (const std::exception& error) {
    if (!train::is_out_of_memory(error)) throw;
  }
  std::vector<ContenderResult> results;
  for (const Contender& each : contenders(options, Inputs(), which.causal)) {
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

double attention_bytes(const AttentionShape& s, at::ScalarType dtype, const std::string& direction) {
  const auto tensor =
      static_cast<double>(s.batch * s.num_heads * s.seqlen * s.head_dim) * static_cast<double>(c10::elementSize(dtype));
  return (direction == "fwd" ? 4 : 8) * tensor;
}

std::string case_name(const AttentionCase& which) {
  const AttentionShape& s = which.shape;
  return (which.name.empty() ? "" : which.name + " ") + format("B%ld H%ld N%ld D%ld %s%s", s.batch, s.num_heads,
                                                               s.seqlen, s.head_dim, dtype_name(which.dtype),
                                                               which.causal ? " causal" : "");
}

void bench_attention(const AttentionBenchOptions& options,
                     const std::function<void(const std::vector<AttentionRow>&)>& done) {
  std::unique_ptr<MemoryLimit> limit;
  if (options.device.is_cpu()) limit = std::make_unique<MemoryLimit>();
  for (const AttentionCase& which : options.cases) {
    done(rows(which, options.device, measure_case(options, which)));
  }
}

}  // namespace strobe::bench
