// The types on a GPU against dotscale on the CPU; what a flash type does not run, it says why.
#include <ATen/Context.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "tests/ops/problem.h"

namespace strobe::ops {
namespace {

const at::Device kGpu(at::kCUDA, 0);

Problem moved(const Problem& p, at::Device device) {
  return {p.q.to(device), p.k.to(device), p.v.to(device), p.grad_out.to(device), p.grad_lse.to(device)};
}

AttentionOptions moved(AttentionOptions options, at::Device device) {
  for (auto* tensor : {&options.key_lengths, &options.query_lengths, &options.cu_seqlens_q, &options.cu_seqlens_k,
                       &options.rng_state}) {
    if (*tensor) *tensor = (*tensor)->to(device);
  }
  return options;
}

Results moved(const Results& r, at::Device device) {
  return {r.out.to(device), r.lse.to(device), r.grad_q.to(device), r.grad_k.to(device), r.grad_v.to(device)};
}

struct TypeOnGpu {
  const char* attn_type;
  at::ScalarType dtype;
};

class OnGpu : public testing::TestWithParam<TypeOnGpu> {
 protected:
  void SetUp() override {
    if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
    torch::manual_seed(3);
  }

  /// The GPU's errors against dotscale's on the CPU in double are those of dotscale in the type, within the bounds.
  void expect_parity(const Problem& p, AttentionOptions options) const {
    options.attn_type = "dotscale";
    options.return_lse = true;
    const Problem rounded = p.cast(GetParam().dtype);
    const Results exact = run(p, options), plain = run(rounded, options);
    options.attn_type = GetParam().attn_type;
    const Results found = run(moved(rounded, kGpu), moved(options, kGpu));
    expect_bounded(moved(found, at::kCPU), plain, exact);
  }
};

TEST_P(OnGpu, MasksAndLengths) {
  const Problem p = Problem::dense(3, 19, 29, 4, 2, 32);
  AttentionOptions options;
  options.causal = true;
  options.window_left = 11;
  options.key_lengths = int_tensor({29, 7, 0});
  options.query_lengths = int_tensor({19, 5, 3});
  expect_parity(p, options);
}

TEST_P(OnGpu, VarlenWithDropout) {
  const Problem p = Problem::varlen(40, 50, 2, 2, 64);
  AttentionOptions options;
  options.cu_seqlens_q = int_tensor({0, 12, 12, 38});
  options.cu_seqlens_k = int_tensor({0, 20, 24, 50});
  options.max_seqlen_q = 26;
  options.max_seqlen_k = 26;
  options.dropout_p = 0.2;
  options.rng_state = rng_state(0x123456789abcdef, 0x100000007);
  expect_parity(p, options);
}

INSTANTIATE_TEST_SUITE_P(Types, OnGpu,
                         testing::Values(TypeOnGpu{"dotscale", at::kFloat}, TypeOnGpu{"dotscale", at::kBFloat16},
                                         TypeOnGpu{"flash_attn", at::kHalf}, TypeOnGpu{"flash_attn", at::kBFloat16},
                                         TypeOnGpu{"imp_flash_attn", at::kHalf},
                                         TypeOnGpu{"imp_flash_attn", at::kBFloat16}));

TEST(FlashOnGpu, SaysWhyNot) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  const Problem p = moved(Problem::dense(1, 8, 8, 1, 1, 64).cast(at::kFloat), kGpu);
  AttentionOptions options;
  options.attn_type = "imp_flash_attn";
  try {
    attention(p.q, p.k, p.v, options);
    ADD_FAILURE() << "ran";
  } catch (const c10::Error& error) {
    EXPECT_THAT(error.what_without_backtrace(), testing::HasSubstr("dtype: expected float16 or bfloat16 on CUDA"));
  }
}

}  // namespace
}  // namespace strobe::ops
