#include "src/attention/cuda/sm90/wgmma.h"

#include <array>
#include <utility>

#include "src/attention/cuda/sm90/kernels.h"

namespace strobe::cuda::sm90 {
namespace {

constexpr std::array kCompiledHeadDims{STROBE_CUDA_HEAD_DIMS};  // what the build asks for, ascending

/// The kernels of one native head dim; null where there are none.
struct Instance {
  void (*fwd)(const FwdCall&, const CudaDevice&, void* stream) = nullptr;
};

template <class T, int kHeadDim>
constexpr Instance instance_of() {
  if constexpr (kHeadDim == 64 || kHeadDim == 128) {
    return {wgmma_fwd<T, kHeadDim>};
  } else {
    return {};
  }
}

template <class T, std::size_t... kIndices>
constexpr auto instances(std::index_sequence<kIndices...>) {
  return std::array{instance_of<T, kCompiledHeadDims[kIndices]>()...};
}

/// Of the smallest native head dim that holds the call's.
template <class Params>
Instance instance(const Params& p) {
  using Indices = std::make_index_sequence<kCompiledHeadDims.size()>;
  static constexpr auto kHalf = instances<__half>(Indices()), kBFloat16 = instances<__nv_bfloat16>(Indices());
  for (std::size_t i = 0; i < kCompiledHeadDims.size(); ++i) {
    if (p.head_dim <= kCompiledHeadDims[i]) return p.dtype == DType::kFloat16 ? kHalf[i] : kBFloat16[i];
  }
  return {};
}

void fwd(const AttentionFwdParams& p) { instance(p).fwd(to_call(p), active_device(), p.stream); }

}  // namespace

std::string wgmma_why_not(const AttentionFwdParams& params, const CudaDevice&) {
  return instance(params).fwd != nullptr ? "" : "the kernels on wgmma have no such head dim";
}

std::string wgmma_why_not(const AttentionBwdParams&, const CudaDevice&) { return "wgmma has no backward"; }

const Kernels& wgmma_kernels() {
  static constexpr Kernels kKernels{[](const AttentionFwdParams&) { return std::size_t{0}; }, &fwd, nullptr, nullptr};
  return kKernels;
}

}  // namespace strobe::cuda::sm90
