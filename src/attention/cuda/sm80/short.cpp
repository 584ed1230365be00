#include "src/attention/cuda/sm80/short.h"

#include <array>
#include <utility>

#include "src/attention/cuda/sm80/short_config.h"
#include "src/attention/cuda/sm80/short_kernels.h"

namespace strobe::cuda::sm80 {
namespace {

constexpr std::array kCompiledHeadDims{STROBE_CUDA_HEAD_DIMS};  // what the build asks for, ascending

/// The kernels of one native head dim; none where it is too wide for the family.
struct Instance {
  int columns = 0;
  void (*fwd)(const FwdCall&, const CudaDevice&, void* stream) = nullptr;
  void (*bwd)(const BwdCall&, const CudaDevice&, void* stream) = nullptr;
};

template <class T, int kColumns>
constexpr Instance instance_of() {
  if constexpr (kColumns <= kShortWidest) {
    return {kColumns, short_fwd<T, kColumns>, short_bwd<T, kColumns>};
  } else {
    return {kColumns};
  }
}

template <class T, std::size_t... kIndices>
constexpr auto instances(std::index_sequence<kIndices...>) {
  return std::array{instance_of<T, kCompiledHeadDims[kIndices]>()...};
}

/// The smallest native head dim that holds the call's; columns 0: none.
template <class Params>
Instance instance(const Params& p) {
  using Indices = std::make_index_sequence<kCompiledHeadDims.size()>;
  static constexpr auto kHalf = instances<__half>(Indices()), kBFloat16 = instances<__nv_bfloat16>(Indices());
  for (const Instance& i : p.dtype == DType::kFloat16 ? kHalf : kBFloat16) {
    if (p.head_dim <= i.columns) return i;
  }
  return {};
}

void fwd(const AttentionFwdParams& p) { instance(p).fwd(to_call(p), active_device(), p.stream); }
void bwd(const AttentionBwdParams& p) { instance(p).bwd(to_call(p), active_device(), p.stream); }

}  // namespace

bool short_reaches(const AttentionFwdParams& p, const CudaDevice& device) {
  const Instance i = instance(p);
  const bool window = p.causal || p.window_left >= 0 || p.window_right >= 0;
  if (window && !short_fwd_suits_windows(p.seqlen_q, p.seqlen_k, i.columns)) return false;
  return i.fwd != nullptr && short_fwd_reaches(device.shared_memory, p.seqlen_q, p.seqlen_k, i.columns);
}

bool short_reaches(const AttentionBwdParams& p, const CudaDevice& device) {
  const Instance i = instance(p);
  return i.bwd != nullptr &&
         short_bwd_reaches(device.shared_memory, p.seqlen_q, p.seqlen_k, i.columns, p.num_heads_q != p.num_heads_k);
}

const Kernels& short_kernels() {
  static constexpr Kernels kKernels{[](const AttentionFwdParams&) { return std::size_t{0}; }, &fwd,
                                    [](const AttentionBwdParams&) { return std::size_t{0}; }, &bwd};
  return kKernels;
}

}  // namespace strobe::cuda::sm80
