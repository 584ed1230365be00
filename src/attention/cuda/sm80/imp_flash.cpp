#include "src/attention/cuda/sm80/imp_flash.h"

#include <array>
#include <utility>

#include "src/attention/cuda/device.h"
#include "src/attention/cuda/sm80/config.h"
#include "src/attention/cuda/sm80/kernels.h"

namespace strobe::cuda::sm80 {
namespace {

constexpr std::array kCompiledHeadDims{STROBE_CUDA_HEAD_DIMS};  // what is compiled, ascending
constexpr std::size_t kAlignment = 256;

/// The kernels of one native head dim.
struct Instance {
  int head_dim;
  void (*fwd)(const FwdCall&, void* stream);
  void (*bwd)(const BwdCall&, const BwdScratch&, int shared_memory, void* stream);
};

template <class T, std::size_t... kIndices>
constexpr auto instances(std::index_sequence<kIndices...>) {
  return std::array{Instance{kCompiledHeadDims[kIndices], imp_flash_fwd<T, kCompiledHeadDims[kIndices]>,
                             imp_flash_bwd<T, kCompiledHeadDims[kIndices]>}...};
}

/// The smallest native head dim that holds the call's.
template <class Params>
const Instance& instance(const Params& p) {
  using Indices = std::make_index_sequence<kCompiledHeadDims.size()>;
  static constexpr auto kHalf = instances<__half>(Indices()), kBFloat16 = instances<__nv_bfloat16>(Indices());
  const auto& all = p.dtype == DType::kFloat16 ? kHalf : kBFloat16;
  std::size_t i = 0;
  while (all[i].head_dim < p.head_dim) ++i;
  return all[i];
}

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::size_t fwd_workspace_size(const AttentionFwdParams&) { return 0; }

void fwd(const AttentionFwdParams& p) { instance(p).fwd(to_call(p), p.stream); }

bool sums_queries(const AttentionBwdParams& p) { return !p.deterministic && bwd_sums_queries(instance(p).head_dim); }

std::size_t stats_bytes(const AttentionBwdParams& p) {
  return aligned(static_cast<std::size_t>(num_stats(to_call(p))) * sizeof(RowStats));
}

std::size_t bwd_workspace_size(const AttentionBwdParams& p) {
  if (!sums_queries(p)) return stats_bytes(p);
  const auto rows = static_cast<std::size_t>(num_stats(to_call(p)));
  return stats_bytes(p) + aligned(rows * static_cast<std::size_t>(instance(p).head_dim) * sizeof(float));
}

void bwd(const AttentionBwdParams& p) {
  auto* const begin = static_cast<std::byte*>(p.workspace);
  const BwdScratch scratch{reinterpret_cast<RowStats*>(begin),
                           sums_queries(p) ? reinterpret_cast<float*>(begin + stats_bytes(p)) : nullptr};
  instance(p).bwd(to_call(p), scratch, active_device().shared_memory, p.stream);
}

}  // namespace

int64_t largest_head_dim() { return kCompiledHeadDims.back(); }

const Kernels& imp_flash_kernels() {
  static constexpr Kernels kKernels{&fwd_workspace_size, &fwd, &bwd_workspace_size, &bwd};
  return kKernels;
}

}  // namespace strobe::cuda::sm80
