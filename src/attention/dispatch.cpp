// Which kernels run a call: one table, asked by the run, by the workspace query and by the question why not.
#include <cstdint>

#include "src/attention/cpu/isa.h"
#include "src/attention/cpu/kernels.h"
#ifdef STROBE_CUDA
#include "src/attention/cuda/kernels.h"
#endif
#include "src/attention/validate.h"
#include "strobe/attention.h"

namespace strobe {
namespace {

constexpr std::uintptr_t kWorkspaceAlignment = 256;

template <class Params>
const Kernels& cpu_kernels(const Params& params) {
  return cpu::kernels(cpu::active_isa(), params.algorithm);
}

#ifdef STROBE_CUDA
template <class Params>
const Kernels& cuda_kernels(const Params& params) {
  return cuda::kernels(params);
}
#else
template <class Params>
const Kernels& cuda_kernels(const Params&) {
  throw Error("device: this build has no CUDA kernels");
}
#endif

/// Who serves a device: the kernels for a call, or an Error with the reason why there are none.
struct Implementation {
  Device device;
  const Kernels& (*fwd)(const AttentionFwdParams&);
  const Kernels& (*bwd)(const AttentionBwdParams&);

  const Kernels& kernels(const AttentionFwdParams& params) const { return fwd(params); }
  const Kernels& kernels(const AttentionBwdParams& params) const { return bwd(params); }
};

constexpr Implementation kImplementations[] = {
    {Device::kCPU, cpu_kernels<AttentionFwdParams>, cpu_kernels<AttentionBwdParams>},
    {Device::kCUDA, cuda_kernels<AttentionFwdParams>, cuda_kernels<AttentionBwdParams>},
};

/// The answer of the table: kernels, or why not.
struct Choice {
  const Kernels* kernels = nullptr;
  std::string why_not;
};

template <class Params>
Choice choose(const Params& params) {
  if (std::string reasons = invalid_params(params); !reasons.empty()) return {nullptr, std::move(reasons)};
  for (const Implementation& row : kImplementations) {
    if (row.device != params.device) continue;
    try {
      return {&row.kernels(params), ""};
    } catch (const Error& error) {
      return {nullptr, std::string(operation(params)) + ": " + error.what()};
    }
  }
  return {nullptr, reason(operation(params), "device", "one of the header's", "another")};
}

template <class Params>
const Kernels& choose_or_throw(const Params& params) {
  const Choice choice = choose(params);
  if (choice.kernels == nullptr) throw Error(choice.why_not);
  return *choice.kernels;
}

std::size_t workspace_size(const Kernels& kernels, const AttentionFwdParams& params) {
  return kernels.fwd_workspace_size(params);
}
std::size_t workspace_size(const Kernels& kernels, const AttentionBwdParams& params) {
  return kernels.bwd_workspace_size(params);
}

template <class Params>
void check_memory(const Kernels& kernels, const Params& params) {
  if (const std::string reasons = invalid_pointers(params); !reasons.empty()) throw Error(reasons);
  const std::size_t bytes = workspace_size(kernels, params);
  const auto address = reinterpret_cast<std::uintptr_t>(params.workspace);
  if (bytes > 0 && (address == 0 || address % kWorkspaceAlignment != 0)) {
    throw Error(reason(operation(params), "workspace", std::to_string(bytes) + " bytes, 256-byte aligned",
                       address == 0 ? "null" : "an address that is not"));
  }
}

}  // namespace

std::string attention_why_not(const AttentionFwdParams& params) { return choose(params).why_not; }
std::string attention_why_not(const AttentionBwdParams& params) { return choose(params).why_not; }

std::size_t attention_workspace_size(const AttentionFwdParams& params) {
  return workspace_size(choose_or_throw(params), params);
}
std::size_t attention_workspace_size(const AttentionBwdParams& params) {
  return workspace_size(choose_or_throw(params), params);
}

void attention_forward(const AttentionFwdParams& params) {
  const Kernels& kernels = choose_or_throw(params);
  check_memory(kernels, params);
  kernels.fwd(params);
}

void attention_backward(const AttentionBwdParams& params) {
  const Kernels& kernels = choose_or_throw(params);
  check_memory(kernels, params);
  kernels.bwd(params);
}

std::string cpu_instruction_set() { return std::string(cpu::name(cpu::active_isa())); }

}  // namespace strobe
