#include "src/attention/cuda/dropout_mask.h"

#include <algorithm>

#include "src/attention/cuda/common/launch.h"

namespace strobe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1 << 20;  // the rest by a grid-stride loop

/// One element a thread and step. The state is read here, so that a captured graph draws anew at each replay.
__global__ void dropout_mask_kernel(const uint64_t* rng_state, int64_t head_begin, int64_t count, int64_t seqlen_q,
                                    int64_t seqlen_k, uint32_t threshold, float scale, float* mask) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; e < count; e += step) {
    const int64_t row = e / seqlen_k;
    const uint64_t head_index = static_cast<uint64_t>(head_begin + row / seqlen_q);
    const bool kept = dropout_keeps(rng_state[0], rng_state[1], head_index, row % seqlen_q, e % seqlen_k, threshold);
    mask[e] = kept ? scale : 0.0f;
  }
}

}  // namespace

void dropout_mask(const DropoutMaskParams& p) {
  const int64_t count = p.num_heads * p.seqlen_q * p.seqlen_k;
  if (count == 0) return;
  const int64_t blocks = std::min(kMaxBlocks, (count + kThreads - 1) / kThreads);
  const uint32_t threshold = dropout_threshold(p.dropout_p);
  launch("dropout_mask", dropout_mask_kernel, blocks, kThreads, 0, p.stream, p.rng_state, p.head_begin, count,
         p.seqlen_q, p.seqlen_k, threshold, dropout_scale(threshold), p.mask);
}

}  // namespace strobe::cuda
