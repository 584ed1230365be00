#include "src/attention/cuda/sm90/short_bwd.h"

#include "src/attention/cuda/common/head_dims.h"
#include "src/attention/cuda/sm90/short_bwd_config.h"
#include "src/attention/cuda/sm90/short_kernels.h"

namespace strobe::cuda::sm90 {
namespace {

/// The native head dim of a call; 0 where it is wider than all.
int columns_of(const Call& c) {
  const std::size_t place = head_dim_place(c.head_dim);
  return place == kCompiledHeadDims.size() ? 0 : kCompiledHeadDims[place];
}

/// The copy engine refuses a stride of zero.
bool is_copied(const Call& c, const Strided& t, int rows) {
  return (c.batch <= 1 || t.batch_stride > 0) && (rows <= 1 || t.row_stride > 0) &&
         (c.num_heads_q <= 1 || t.head_stride > 0);
}

bool reaches(const BwdCall& c, const CudaDevice& device) {
  const bool lengths = c.varlen() || c.key_lengths != nullptr || c.query_lengths != nullptr;
  const bool masked = c.window_left < kUnlimited || c.window_right < kUnlimited || c.rng_state != nullptr;
  if (lengths || masked || c.num_heads_q != c.num_heads_k) return false;
  if (!stream_reaches(device.shared_memory, c.seqlen_q, c.seqlen_k, columns_of(c))) return false;
  return is_copied(c, c.q, c.seqlen_q) && is_copied(c, c.out, c.seqlen_q) && is_copied(c, c.grad_out, c.seqlen_q) &&
         is_copied(c, c.k, c.seqlen_k) && is_copied(c, c.v, c.seqlen_k);
}

template <class T, std::size_t kIndex = 0>
void bwd_of(const BwdCall& c, void* stream) {
  if constexpr (kIndex < kCompiledHeadDims.size()) {
    constexpr int kColumns = kCompiledHeadDims[kIndex];
    if (columns_of(c) != kColumns) return bwd_of<T, kIndex + 1>(c, stream);
    if constexpr (is_streamed(kColumns)) short_bwd_stream<T, kColumns>(c, active_device(), stream);
  }
}

void bwd(const AttentionBwdParams& p) {
  p.dtype == DType::kFloat16 ? bwd_of<__half>(to_call(p), p.stream) : bwd_of<__nv_bfloat16>(to_call(p), p.stream);
}

}  // namespace

std::string short_bwd_why_not(const AttentionFwdParams&, const CudaDevice&) { return "this form is a backward"; }

std::string short_bwd_why_not(const AttentionBwdParams& params, const CudaDevice& device) {
  return reaches(to_call(params), device) ? "" : "the streamed short backward does not reach this call";
}

const Kernels& short_bwd_kernels() {
  static constexpr Kernels kKernels{nullptr, nullptr, [](const AttentionBwdParams&) { return std::size_t{0}; }, &bwd};
  return kKernels;
}

}  // namespace strobe::cuda::sm90
