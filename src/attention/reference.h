// Attention by its definition, row by row and O(N^2): the oracle of the tests, and the plain formula that sets their
// bounds. Reads the params of a call (null workspace, outputs, softmax_lse and out are fine) and returns compact
// tensors.
#pragma once

#include <vector>

#include "strobe/attention.h"

namespace strobe::reference {

enum class Arithmetic {
  kExact,  // double throughout; only the inputs carry the rounding of their type
  kPlain,  // the formula as a chain of tensors of the params' dtype: sums and softmax in fp32, S, P, O, dP and dS
           // rounded
};

/// The largest element of each tensor when every term of its sums counts with its absolute value and with what a
/// rounding of the scores does to it: times the unit roundoff, the error of an arithmetic that rounds every quantity
/// once.
struct Magnitudes {
  double out = 0, grad_q = 0, grad_k = 0, grad_v = 0;
};

struct Forward {
  std::vector<double> out;              // [B, Nq, Hq, D] or [total_q, Hq, D]
  std::vector<double> softmax_lse;      // [B, Hq, Nq] or [Hq, total_q]
  std::vector<double> score_magnitude;  // like softmax_lse: the largest softmax_scale * |q| |k| of the row
  Magnitudes magnitudes;
};
Forward forward(const AttentionFwdParams& params, Arithmetic arithmetic);

struct Backward {
  std::vector<double> grad_q;  // like out
  std::vector<double> grad_k;  // [B, Nk, Hk, D] or [total_k, Hk, D]
  std::vector<double> grad_v;
  Magnitudes magnitudes;
};
/// Computes the forward it needs by itself. delta is rowsum(dO * O), O rounded to the dtype in the plain arithmetic.
Backward backward(const AttentionBwdParams& params, Arithmetic arithmetic);

}  // namespace strobe::reference
