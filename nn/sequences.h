// How the sequences of a batch lie in a tensor of tokens.
//   padded  [B, N, ...]: each sequence begins a row and is padded on the right
//   packed  [T, ...]: one sequence after the other and nothing between, so that no layer computes padding
// Modules over tokens take either; attention needs to be told which, and a token's position is counted from its own
// sequence's start in both.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace strobe::nn {

struct Sequences {
  at::Tensor lengths = {};     // padded: [B] int32; undefined: no sequence is padded
  at::Tensor cu_seqlens = {};  // packed: [B+1] int32, where each sequence starts, and T; undefined: padded
  at::Tensor positions = {};   // packed: [T] int64, of each token in its sequence
  int64_t longest = 0;         // packed: no sequence is longer; the host must know it, or a GPU would be asked for it

  bool packed() const { return cu_seqlens.defined(); }
};

}  // namespace strobe::nn
