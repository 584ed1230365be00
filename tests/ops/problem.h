// Inputs, a run with its gradients, and the bounds that one run is held to by others.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <vector>

#include "ops/attention.h"

namespace strobe::ops {

inline at::Tensor int_tensor(std::vector<int32_t> values) { return at::tensor(values, at::dtype(at::kInt)); }

/// {seed, offset}
inline at::Tensor rng_state(int64_t seed, int64_t offset) {
  return at::tensor(std::vector<int64_t>{seed, offset}, at::dtype(at::kLong));
}

/// Leaves in double whose values the 16-bit types hold; cast() gives the same problem in another dtype.
struct Problem {
  at::Tensor q, k, v, grad_out, grad_lse;

  /// q [B, Nq, Hq, D], k and v [B, Nk, Hk, D].
  static Problem dense(int64_t batch, int64_t nq, int64_t nk, int64_t hq, int64_t hk, int64_t dim) {
    return {values({batch, nq, hq, dim}), values({batch, nk, hk, dim}), values({batch, nk, hk, dim}),
            values({batch, nq, hq, dim}), values({batch, hq, nq})};
  }
  /// q [total_q, Hq, D], k and v [total_k, Hk, D].
  static Problem varlen(int64_t total_q, int64_t total_k, int64_t hq, int64_t hk, int64_t dim) {
    return {values({total_q, hq, dim}), values({total_k, hk, dim}), values({total_k, hk, dim}),
            values({total_q, hq, dim}), values({hq, total_q})};
  }

  Problem cast(at::ScalarType dtype) const {
    return {q.to(dtype), k.to(dtype), v.to(dtype), grad_out.to(dtype),
            grad_lse.to(dtype == at::kDouble ? at::kDouble : at::kFloat)};
  }

 private:
  static at::Tensor values(at::IntArrayRef shape) { return at::randn(shape).to(at::kBFloat16).to(at::kDouble); }
};

struct Results {
  at::Tensor out, lse, grad_q, grad_k, grad_v;
};

/// A leaf over the same memory layout.
inline at::Tensor leaf(const at::Tensor& t) { return t.detach().requires_grad_(); }

/// Runs forward and backward; the gradient of the LSE takes part where options.return_lse.
inline Results run(const Problem& p, const AttentionOptions& options) {
  const at::Tensor q = leaf(p.q), k = leaf(p.k), v = leaf(p.v);
  const auto [out, lse] = attention(q, k, v, options);
  std::vector<at::Tensor> outputs{out}, upstream{p.grad_out};
  if (options.return_lse) {
    outputs.push_back(lse);
    upstream.push_back(p.grad_lse);
  }
  const auto grads = torch::autograd::grad(outputs, {q, k, v}, upstream);
  return {out.detach(), lse.detach(), grads[0], grads[1], grads[2]};
}

/// The largest |a - b| over what is finite in b; NaN and infinities must stand in the same places.
inline double max_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble), finite = y.isfinite();
  EXPECT_TRUE(x.sizes() == y.sizes());
  EXPECT_TRUE(x.isfinite().equal(finite));
  EXPECT_TRUE(x.masked_select(y.isinf()).equal(y.masked_select(y.isinf())));
  const at::Tensor difference = x.sub(y).abs().masked_select(finite);
  return difference.numel() == 0 ? 0.0 : difference.max().item<double>();
}

/// max |(x + 0.3 - 0.3) - x| in found's dtype: what one rounding beside another number costs.
inline double rounding_allowance(const at::Tensor& exact, at::ScalarType dtype) {
  const at::Tensor finite = exact.masked_select(exact.isfinite());
  if (finite.numel() == 0) return 0.0;
  const at::Tensor x = finite.to(dtype);
  return x.add(0.3).sub(0.3).to(at::kDouble).sub(x.to(at::kDouble)).abs().max().item<double>();
}

/// error(found) <= factor * error(plain) + 2 roundings, both against `exact`.
inline void expect_bounded(const std::string& what, const at::Tensor& found, const at::Tensor& plain,
                           const at::Tensor& exact, double factor) {
  const double bound = factor * max_error(plain, exact) + 2 * rounding_allowance(exact, found.scalar_type());
  EXPECT_LE(max_error(found, exact), bound) << what;
}

inline void expect_bounded(const Results& found, const Results& plain, const Results& exact) {
  expect_bounded("out", found.out, plain.out, exact.out, 2);
  if (exact.lse.numel() > 0) expect_bounded("softmax_lse", found.lse, plain.lse, exact.lse, 2);
  expect_bounded("grad_q", found.grad_q, plain.grad_q, exact.grad_q, 3);
  expect_bounded("grad_k", found.grad_k, plain.grad_k, exact.grad_k, 3);
  expect_bounded("grad_v", found.grad_v, plain.grad_v, exact.grad_v, 3);
}

inline void expect_equal(const Results& a, const Results& b) {
  EXPECT_TRUE(a.out.equal(b.out));
  EXPECT_TRUE(a.lse.equal(b.lse));
  EXPECT_TRUE(a.grad_q.equal(b.grad_q));
  EXPECT_TRUE(a.grad_k.equal(b.grad_k));
  EXPECT_TRUE(a.grad_v.equal(b.grad_v));
}

}  // namespace strobe::ops
