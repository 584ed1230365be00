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

struct AttentionBenchOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  bool causal = false;
  std::string attn_type;  // one of ours beside ATen's; empty: all
  std::vector<AttentionShape> shapes;
  Budget budget;
};

/// One backend, one direction, one shape.
struct AttentionRow {
  AttentionShape shape;
  at::ScalarType dtype = at::kFloat;
  bool causal = false;
  std::string backend;
  std::string direction;  // "fwd", "bwd"
  ContenderResult::Status status = ContenderResult::Status::kMeasured;
  std::string why;         // where the backend cannot run
  std::vector<double> ms;  // one a repetition
  double peak_mib = 0;     // torch's allocator beyond the inputs; bwd: with what the forward saved
};

/// Multiplications and additions of the visible pairs: forward 4 D a pair and head (Q K^T and P V), backward 2.5 times
/// that.
double attention_flops(const AttentionShape& shape, bool causal, const std::string& direction);

/// Calls `done` with the rows of each shape when they are there.
void bench_attention(const AttentionBenchOptions& options,
                     const std::function<void(const std::vector<AttentionRow>&)>& done);

}  // namespace strobe::bench
