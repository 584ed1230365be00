// What the passes of the backward leave each other in the workspace.
#pragma once

#include "src/attention/cuda/common/call.h"

namespace strobe::cuda {

/// Of one query row: P = exp2(S * softmax_scale * log2(e) + shift), dS = P * (dP - delta).
struct alignas(8) RowStats {
  float shift;  // -LSE * log2(e); 0 for a row without keys, whose scores are -inf
  float delta;  // rowsum(dO * O) - dLSE
};

struct BwdScratch {
  RowStats* stats;  // like softmax_lse
  float* grad_q;  // the sums of dS K: like softmax_lse, a row of native head dim each; null where no pass adds to them
};

inline int64_t num_stats(const Call& c) { return c.num_heads_q * (c.varlen() ? c.total_q : c.batch * c.seqlen_q); }

}  // namespace strobe::cuda
