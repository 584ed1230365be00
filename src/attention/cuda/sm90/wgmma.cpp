#include "src/attention/cuda/sm90/wgmma.h"

#include <cstddef>

#include "src/attention/cuda/common/head_dims.h"
#include "src/attention/cuda/sm90/bwd_config.h"
#include "src/attention/cuda/sm90/kernels.h"

namespace strobe::cuda::sm90 {
namespace {

constexpr std::size_t kAlignment = 256;

/// The kernels of one native head dim; null where there are none.
struct Instance {
  int head_dim = 0;
  void (*fwd)(const FwdCall&, const CudaDevice&, void* stream) = nullptr;
  void (*bwd)(const BwdCall&, const BwdScratch&, void* stream) = nullptr;
};

template <class T, int kHeadDim>
constexpr Instance instance_of() {
  if constexpr (kHeadDim == 64 || kHeadDim == 128) {
    return {kHeadDim, wgmma_fwd<T, kHeadDim>, wgmma_bwd<T, kHeadDim>};
  } else {
    return {};
  }
}

/// Of the native head dim that a call takes.
template <class Params>
Instance instance(const Params& p) {
  static constexpr auto kHalf = of_each_head_dim([](auto head_dim) { return instance_of<__half, head_dim>(); });
  static constexpr auto kBFloat16 =
      of_each_head_dim([](auto head_dim) { return instance_of<__nv_bfloat16, head_dim>(); });
  const std::size_t place = head_dim_place(p.head_dim);
  if (place == kHalf.size()) return {};
  return p.dtype == DType::kFloat16 ? kHalf[place] : kBFloat16[place];
}

void fwd(const AttentionFwdParams& p) { instance(p).fwd(to_call(p), active_device(), p.stream); }

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::size_t stats_bytes(const BwdCall& call) {
  return aligned(static_cast<std::size_t>(num_stats(call)) * sizeof(RowStats));
}

std::size_t bwd_workspace_size(const AttentionBwdParams& p) {
  const BwdCall call = to_call(p);
  const int head_dim = instance(p).head_dim, rows = bwd_rows(head_dim, false);  // the most
  return stats_bytes(call) + aligned(static_cast<std::size_t>(num_sums(call, head_dim, rows)) * sizeof(float));
}

void bwd(const AttentionBwdParams& p) {
  const BwdCall call = to_call(p);
  auto* const begin = static_cast<std::byte*>(p.workspace);
  const BwdScratch scratch{reinterpret_cast<RowStats*>(begin), reinterpret_cast<float*>(begin + stats_bytes(call))};
  instance(p).bwd(call, scratch, p.stream);
}

}  // namespace

std::string wgmma_why_not(const AttentionFwdParams& params, const CudaDevice&) {
  return instance(params).fwd != nullptr ? "" : "the kernels on wgmma have no such head dim";
}

std::string wgmma_why_not(const AttentionBwdParams& params, const CudaDevice&) {
  if (params.deterministic) return "the backward on wgmma sums dQ in any order";
  return instance(params).bwd != nullptr ? "" : "the kernels on wgmma have no such head dim";
}

const Kernels& wgmma_kernels() {
  static constexpr Kernels kKernels{[](const AttentionFwdParams&) { return std::size_t{0}; }, &fwd, &bwd_workspace_size,
                                    &bwd};
  return kKernels;
}

}  // namespace strobe::cuda::sm90
