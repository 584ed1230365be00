#include "src/attention/cuda/mma/mma.h"

#include <algorithm>
#include <type_traits>

#include "src/attention/cuda/common/head_dims.h"
#include "src/attention/cuda/mma/kernels.h"
#include "src/attention/cuda/sm75/config.h"
#include "src/attention/cuda/sm80/config.h"

namespace strobe::cuda {
namespace {

constexpr std::size_t kAlignment = 256;

template <class Arch>
using Config = std::conditional_t<std::is_same_v<Arch, Sm75>, Sm75Config, Sm80Config>;

template <class Arch>
constexpr bool kHasBFloat16 = !std::is_same_v<Arch, Sm75>;

/// The kernels of one native head dim; null where there are none.
struct Instance {
  int head_dim;
  void (*imp_fwd)(const FwdCall&, void* stream) = nullptr;
  void (*imp_bwd)(const BwdCall&, const BwdScratch&, int shared_memory, void* stream) = nullptr;
  void (*flash_fwd)(const FwdCall&, const FlashScratch&, void* stream) = nullptr;
  void (*flash_bwd)(const BwdCall&, const BwdScratch&, int shared_memory, void* stream) = nullptr;
};

template <class Arch, class T, int kHeadDim>
constexpr Instance instance_of() {
  Instance i{kHeadDim};
  if constexpr (kHeadDim <= Config<Arch>::kWidest) {
    i.imp_fwd = imp_flash_fwd<Arch, T, kHeadDim>;
    i.imp_bwd = imp_flash_bwd<Arch, T, kHeadDim>;
  }
  if constexpr (kHeadDim <= kWidestFlash) {
    i.flash_fwd = flash_fwd<Arch, T, kHeadDim>;
    i.flash_bwd = flash_bwd<Arch, T, kHeadDim>;
  }
  return i;
}

/// Of the native head dim that a call takes, which is not wider than all.
template <class Arch, class Params>
const Instance& instance(const Params& p) {
  static constexpr auto kHalf = of_each_head_dim([](auto head_dim) { return instance_of<Arch, __half, head_dim>(); });
  const std::size_t place = head_dim_place(p.head_dim);
  if constexpr (kHasBFloat16<Arch>) {
    static constexpr auto kBFloat16 =
        of_each_head_dim([](auto head_dim) { return instance_of<Arch, __nv_bfloat16, head_dim>(); });
    if (p.dtype == DType::kBFloat16) return kBFloat16[place];
  }
  return kHalf[place];
}

/// The widest head of the compiled kernels.
template <class Arch>
int widest(Algorithm algorithm) {
  const int limit =
      algorithm == Algorithm::kFlashAttn ? std::min(kWidestFlash, Config<Arch>::kWidest) : Config<Arch>::kWidest;
  int widest = 0;
  for (const int head_dim : kCompiledHeadDims) widest = head_dim <= limit ? head_dim : widest;
  return widest;
}

template <class Arch, class Params>
std::string why_not(const Params& p, const CudaDevice& device) {
  const std::string path(name(device.path));
  if (p.dtype == DType::kBFloat16 && !kHasBFloat16<Arch>) {
    return "dtype: expected float16 on the path " + path + ", whose tensor cores know no bfloat16, got bfloat16";
  }
  if (const int most = widest<Arch>(p.algorithm); p.head_dim > most) {
    const char* const algorithm = p.algorithm == Algorithm::kFlashAttn ? "flash_attn" : "imp_flash_attn";
    return "head_dim: expected at most " + std::to_string(most) + " for this build's " + algorithm + " on the path " +
           path + ", got " + std::to_string(p.head_dim);
  }
  return "";
}

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// Rows of all query heads.
template <class Params>
std::size_t num_rows(const Params& p) {
  return static_cast<std::size_t>(num_stats(to_call(p)));
}

/// Of fp32 sums of the width of the native head dim, for every row.
template <class Arch, class Params>
std::size_t sums_bytes(const Params& p) {
  return aligned(num_rows(p) * static_cast<std::size_t>(instance<Arch>(p).head_dim) * sizeof(float));
}

std::size_t stats_bytes(const AttentionBwdParams& p) { return aligned(num_rows(p) * sizeof(RowStats)); }
std::size_t softmax_bytes(const AttentionFwdParams& p) { return aligned(num_rows(p) * sizeof(RowSoftmax)); }

/// Whether the pass over keys of imp_flash_attn adds to dQ.
template <class Arch>
bool sums_queries(const AttentionBwdParams& p) {
  return !p.deterministic && Config<Arch>::bwd_sums_queries(instance<Arch>(p).head_dim);
}

template <class Arch>
BwdScratch bwd_scratch(const AttentionBwdParams& p, bool with_sums) {
  auto* const begin = static_cast<std::byte*>(p.workspace);
  return {reinterpret_cast<RowStats*>(begin), with_sums ? reinterpret_cast<float*>(begin + stats_bytes(p)) : nullptr};
}

template <class Arch>
struct ImpFlash {
  static std::size_t fwd_workspace_size(const AttentionFwdParams&) { return 0; }
  static void fwd(const AttentionFwdParams& p) { instance<Arch>(p).imp_fwd(to_call(p), p.stream); }
  static std::size_t bwd_workspace_size(const AttentionBwdParams& p) {
    return stats_bytes(p) + (sums_queries<Arch>(p) ? sums_bytes<Arch>(p) : 0);
  }
  static void bwd(const AttentionBwdParams& p) {
    const BwdScratch scratch = bwd_scratch<Arch>(p, sums_queries<Arch>(p));
    instance<Arch>(p).imp_bwd(to_call(p), scratch, active_device().shared_memory, p.stream);
  }
};

template <class Arch>
struct Flash {
  static std::size_t fwd_workspace_size(const AttentionFwdParams& p) { return softmax_bytes(p) + sums_bytes<Arch>(p); }
  static void fwd(const AttentionFwdParams& p) {
    auto* const begin = static_cast<std::byte*>(p.workspace);
    const FlashScratch scratch{reinterpret_cast<RowSoftmax*>(begin),
                               reinterpret_cast<float*>(begin + softmax_bytes(p))};
    instance<Arch>(p).flash_fwd(to_call(p), scratch, p.stream);
  }
  static std::size_t bwd_workspace_size(const AttentionBwdParams& p) { return stats_bytes(p) + sums_bytes<Arch>(p); }
  static void bwd(const AttentionBwdParams& p) {
    instance<Arch>(p).flash_bwd(to_call(p), bwd_scratch<Arch>(p, true), active_device().shared_memory, p.stream);
  }
};

template <class Implementation>
constexpr Kernels kKernels{&Implementation::fwd_workspace_size, &Implementation::fwd,
                           &Implementation::bwd_workspace_size, &Implementation::bwd};

}  // namespace

template <class Arch>
std::string mma_why_not(const AttentionFwdParams& params, const CudaDevice& device) {
  return why_not<Arch>(params, device);
}
template <class Arch>
std::string mma_why_not(const AttentionBwdParams& params, const CudaDevice& device) {
  return why_not<Arch>(params, device);
}
template <class Arch>
const Kernels& flash_kernels() {
  return kKernels<Flash<Arch>>;
}
template <class Arch>
const Kernels& imp_flash_kernels() {
  return kKernels<ImpFlash<Arch>>;
}

#define STROBE_MMA(Arch)                                                                \
  template std::string mma_why_not<Arch>(const AttentionFwdParams&, const CudaDevice&); \
  template std::string mma_why_not<Arch>(const AttentionBwdParams&, const CudaDevice&); \
  template const Kernels& flash_kernels<Arch>();                                        \
  template const Kernels& imp_flash_kernels<Arch>();
#ifdef STROBE_CUDA_SM75
STROBE_MMA(Sm75)
#endif
STROBE_MMA(Sm80)
#undef STROBE_MMA

}  // namespace strobe::cuda
