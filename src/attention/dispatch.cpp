// Which kernels run a call: one table, asked by the run, by the workspace query and by the question why not.
#include <cstdint>

#include "src/attention/cpu/isa.h"
#include "src/attention/cpu/kernels.h"
#include "src/attention/validate.h"
#include "strobe/attention.h"

namespace strobe {
namespace {

constexpr std::uintptr_t kWorkspaceAlignment = 256;

const cpu::CpuKernels& cpu_kernels(Algorithm algorithm) { return cpu::kernels(cpu::active_isa(), algorithm); }

/// Who serves a device and an algorithm: the kernels, or the reason why there are none.
struct Implementation {
  Device device;
  Algorithm algorithm;
  const cpu::CpuKernels& (*kernels)(Algorithm);
  const char* why_none;
};

constexpr Implementation kImplementations[] = {
    {Device::kCPU, Algorithm::kFlashAttn, cpu_kernels, nullptr},
    {Device::kCPU, Algorithm::kImpFlashAttn, cpu_kernels, nullptr},
    {Device::kCUDA, Algorithm::kFlashAttn, nullptr, "this build has no CUDA kernels of flash_attn"},
    {Device::kCUDA, Algorithm::kImpFlashAttn, nullptr, "this build has no CUDA kernels of imp_flash_attn"},
};

/// The answer of the table: kernels, or why not.
struct Choice {
  const cpu::CpuKernels* kernels = nullptr;
  std::string why_not;
};

template <class Params>
Choice choose(const Params& params) {
  if (std::string reasons = invalid_params(params); !reasons.empty()) return {nullptr, std::move(reasons)};
  for (const Implementation& row : kImplementations) {
    if (row.device != params.device || row.algorithm != params.algorithm) continue;
    if (row.kernels == nullptr) return {nullptr, std::string(operation(params)) + ": " + row.why_none};
    try {
      return {&row.kernels(params.algorithm), ""};
    } catch (const Error& error) {  // the environment asks for an instruction set that this machine has not
      return {nullptr, std::string(operation(params)) + ": " + error.what()};
    }
  }
  return {nullptr, reason(operation(params), "algorithm", "one of the header's, on one of its devices", "another")};
}

template <class Params>
const cpu::CpuKernels& choose_or_throw(const Params& params) {
  const Choice choice = choose(params);
  if (choice.kernels == nullptr) throw Error(choice.why_not);
  return *choice.kernels;
}

std::size_t workspace_size(const cpu::CpuKernels& kernels, const AttentionFwdParams& params) {
  return kernels.fwd_workspace_size(params);
}
std::size_t workspace_size(const cpu::CpuKernels& kernels, const AttentionBwdParams& params) {
  return kernels.bwd_workspace_size(params);
}

template <class Params>
void check_memory(const cpu::CpuKernels& kernels, const Params& params) {
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
  const cpu::CpuKernels& kernels = choose_or_throw(params);
  check_memory(kernels, params);
  kernels.fwd(params);
}

void attention_backward(const AttentionBwdParams& params) {
  const cpu::CpuKernels& kernels = choose_or_throw(params);
  check_memory(kernels, params);
  kernels.bwd(params);
}

std::string cpu_instruction_set() { return std::string(cpu::name(cpu::active_isa())); }

}  // namespace strobe
