#include "src/attention/cuda/sm80/short.h"

#include "src/attention/cuda/common/head_dims.h"
#include "src/attention/cuda/sm80/short_config.h"
#include "src/attention/cuda/sm80/short_kernels.h"

namespace strobe::cuda::sm80 {
namespace {

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

/// Of the native head dim that a call takes; columns 0: none.
template <class Params>
Instance instance(const Params& p) {
  static constexpr auto kHalf = of_each_head_dim([](auto columns) { return instance_of<__half, columns>(); });
  static constexpr auto kBFloat16 =
      of_each_head_dim([](auto columns) { return instance_of<__nv_bfloat16, columns>(); });
  const std::size_t place = head_dim_place(p.head_dim);
  if (place == kHalf.size()) return {};
  return p.dtype == DType::kFloat16 ? kHalf[place] : kBFloat16[place];
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
