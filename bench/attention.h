// `strobe bench attention`: our attention types and ATen's side by side, forward and backward, on self-attention whose
// q, k and v are views of one packed projection.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "bench/measure.h"

namespace strobe::bench {

struct AttentionShape {
  int64_t batch = 32, num_heads = 8, seqlen = 0, head_dim = 64;
};

struct AttentionCase {
  std::string name;  // of the model that has such a call; may be empty
  AttentionShape shape;
  at::ScalarType dtype = at::kFloat;
  bool causal = false;
};

struct AttentionBenchOptions {
  at::Device device = at::kCPU;
  std::vector<AttentionCase> cases;
  std::string attn_type;  // one of ours; empty: all
  bool peers = true;      // ATen's beside them
  Budget budget;
};

/// One backend, one direction, one case.
struct AttentionRow {
  AttentionCase which;
  std::string backend;
  std::string direction;  // "fwd", "bwd"
  ContenderResult::Status status = ContenderResult::Status::kMeasured;
  std::string why;              // where the backend cannot run
  std::vector<double> ms;       // one a repetition
  std::vector<double> host_ms;  // likewise, on an accelerator: what the host took to queue the call
  double peak_mib = 0;          // torch's allocator beyond the inputs; bwd: with what the forward saved
};

/// Multiplications and additions of the visible pairs: forward 4 D a pair and head (Q K^T and P V), backward 2.5 times
/// that.
double attention_flops(const AttentionShape& shape, bool causal, const std::string& direction);

/// The least that must cross memory: forward q, k, v and out, backward these and their gradients, each once. The LSE is
/// not counted.
double attention_bytes(const AttentionShape& shape, at::ScalarType dtype, const std::string& direction);

/// "B32 H8 N200 D64 bf16 causal", after the name where there is one.
std::string case_name(const AttentionCase& which);

/// Calls `done` with the rows of each case when they are there.
void bench_attention(const AttentionBenchOptions& options,
                     const std::function<void(const std::vector<AttentionRow>&)>& done);

}  // namespace strobe::bench
