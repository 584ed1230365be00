// Every refusal and its text, in both directions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "strobe/attention.h"
#include "tests/attention/problem.h"
#include "tests/message_of.h"

namespace strobe::testing {
namespace {

using ::testing::HasSubstr;

/// A wrong call: what makes it wrong, and the reason without the operation's name. "" means that nothing is wrong.
struct Refusal {
  template <class Change>
  Refusal(Change change, std::string reason_) : fwd(change), bwd(change), reason(std::move(reason_)) {}

  std::function<void(AttentionFwdParams&)> fwd;
  std::function<void(AttentionBwdParams&)> bwd;
  std::string reason;
};

const int32_t kLengths[] = {0, 1, 2, 3};
const uint64_t kRngState[] = {1, 2};
constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

const std::vector<Refusal>& refusals() {
  static const std::vector<Refusal> all = {
      {[](auto&) {}, ""},
      {[](auto& p) { p.batch = -1; }, "batch: expected at least 0, got -1"},
      {[](auto& p) { p.batch = 0; }, ""},
      {[](auto& p) { p.seqlen_q = -2; }, "seqlen_q: expected at least 0, got -2"},
      {[](auto& p) { p.seqlen_k = -2; }, "seqlen_k: expected at least 0, got -2"},
      {[](auto& p) { p.seqlen_q = p.seqlen_k = 0; }, ""},
      {[](auto& p) { p.num_heads_q = 0; }, "num_heads_q: expected at least 1, got 0"},
      {[](auto& p) { p.num_heads_k = 0; }, "num_heads_k: expected at least 1, got 0"},
      {[](auto& p) { p.num_heads_k = 3; }, "num_heads_k: expected a divisor of num_heads_q = 4, got 3"},
      {[](auto& p) { p.num_heads_k = 8; }, "num_heads_k: expected a divisor of num_heads_q = 4, got 8"},
      {[](auto& p) { p.head_dim = 0; }, "head_dim: expected a multiple of 8 up to 128, or 256, got 0"},
      {[](auto& p) { p.head_dim = 12; }, "head_dim: expected a multiple of 8 up to 128, or 256, got 12"},
      {[](auto& p) { p.head_dim = 136; }, "head_dim: expected a multiple of 8 up to 128, or 256, got 136"},
      {[](auto& p) { p.dtype = DType::kFloat16; }, "dtype: expected float32 or bfloat16 on the CPU, got float16"},
      {[](auto& p) { p.device = Device::kCUDA; }, "dtype: expected float16 or bfloat16 on CUDA, got float32"},
      {[](auto& p) { p.softmax_scale = 0; }, "softmax_scale: expected a finite number > 0, got 0"},
      {[](auto& p) { p.softmax_scale = -0.5f; }, "softmax_scale: expected a finite number > 0, got -0.5"},
      {[](auto& p) { p.softmax_scale = INFINITY; }, "softmax_scale: expected a finite number > 0, got inf"},
      {[](auto& p) { p.softmax_scale = NAN; }, "softmax_scale: expected a finite number > 0, got nan"},
      {[](auto& p) { p.window_left = -2; }, "window_left: expected at least -1, got -2"},
      {[](auto& p) { p.window_right = -7; }, "window_right: expected at least -1, got -7"},
      {[](auto& p) { p.window_left = p.window_right = kHuge; }, ""},
      {[](auto& p) { p.num_threads = 0; }, "num_threads: expected at least 1, got 0"},
      {[](auto& p) { p.dropout_p = -0.1; }, "dropout_p: expected 0 <= dropout_p < 1, got -0.1"},
      {[](auto& p) { p.dropout_p = 1; }, "dropout_p: expected 0 <= dropout_p < 1, got 1"},
      {[](auto& p) { p.dropout_p = NAN; }, "dropout_p: expected 0 <= dropout_p < 1, got nan"},
      {[](auto& p) { p.dropout_p = 1 - 1e-6, p.rng_state = kRngState; },
       "dropout_p: expected a probability whose round((1 - dropout_p) * 65536) is at least 1, got 1 - 1e-06"},
      {[](auto& p) { p.dropout_p = 0.1; }, "rng_state: expected a pointer with dropout_p > 0, got null"},
      {[](auto& p) { p.rng_state = kRngState; }, "rng_state: expected null with dropout_p = 0, got a pointer"},
      {[](auto& p) { p.dropout_p = 0.1, p.rng_state = kRngState; }, ""},
      {[](auto& p) { p.cu_seqlens_q = kLengths; }, "cu_seqlens_k: expected a pointer beside cu_seqlens_q, got null"},
      {[](auto& p) { p.cu_seqlens_k = kLengths; }, "cu_seqlens_q: expected a pointer beside cu_seqlens_k, got null"},
      {[](auto& p) { p.cu_seqlens_q = p.cu_seqlens_k = p.key_lengths = kLengths; },
       "key_lengths: expected null beside cu_seqlens, got a pointer"},
      {[](auto& p) { p.cu_seqlens_q = p.cu_seqlens_k = p.query_lengths = kLengths; },
       "query_lengths: expected null beside cu_seqlens, got a pointer"},
      {[](auto& p) { p.cu_seqlens_q = p.cu_seqlens_k = kLengths, p.total_q = -1; },
       "total_q: expected at least 0, got -1"},
      {[](auto& p) { p.cu_seqlens_q = p.cu_seqlens_k = kLengths, p.total_k = -1; },
       "total_k: expected at least 0, got -1"},
      {[](auto& p) { p.cu_seqlens_q = p.cu_seqlens_k = kLengths, p.total_q = p.total_k = 3; }, ""},
      {[](auto& p) { p.q = reinterpret_cast<const void*>(0x1008); },
       "q: expected a 16-byte aligned pointer, got 8 bytes past one"},
      {[](auto& p) { p.k_row_stride += 2; },
       "k_row_stride: expected a multiple of 4 elements (16 bytes), at least 0, got 66"},
      {[](auto& p) { p.dtype = DType::kBFloat16, p.v_head_stride += 4; },
       "v_head_stride: expected a multiple of 8 elements (16 bytes), at least 0, got 36"},
      {[](auto& p) { p.v_batch_stride = -64; },
       "v_batch_stride: expected a multiple of 4 elements (16 bytes), at least 0, got -64"},
      {[](auto& p) { p.k_batch_stride = p.k_row_stride = p.v_head_stride = 0; }, ""},  // expanded inputs
      {[](auto& p) { p.batch = 1, p.k_batch_stride = 7; }, ""},                        // a stride that is not used
      {[](auto& p) { p.q_batch_stride = kHuge - 15; }, "q: expected offsets that fit in 64 bits, got larger ones"},
      {[](auto& p) { p.batch = p.seqlen_q = int64_t{1} << 40; },
       "softmax_lse: expected a number of rows that fits in 64 bits, got a larger one"},
      {[](auto& p) { p.batch = 1 << 20; }, ""},
  };
  return all;
}

/// A sound problem to change.
const Problem& sound() {
  static const Problem problem(
      {.batch = 3, .seqlen_q = 5, .seqlen_k = 6, .num_heads_q = 4, .num_heads_k = 2, .head_dim = 32});
  return problem;
}

void expect_reason(const std::string& why_not, const std::string& operation, const std::string& reason) {
  EXPECT_EQ(why_not, reason.empty() ? "" : operation + reason);
}

TEST(Validate, RefusalsOfTheForward) {
  for (const Refusal& refusal : refusals()) {
    AttentionFwdParams p = sound().fwd_params(Algorithm::kFlashAttn);
    refusal.fwd(p);
    expect_reason(attention_why_not(p), "attention_forward: ", refusal.reason);
    if (refusal.reason.empty()) continue;
    EXPECT_THROW(attention_workspace_size(p), Error) << refusal.reason;
    EXPECT_THROW(attention_forward(p), Error) << refusal.reason;
  }
}

TEST(Validate, RefusalsOfTheBackward) {
  for (const Refusal& refusal : refusals()) {
    AttentionBwdParams p = sound().bwd_params(Algorithm::kImpFlashAttn);
    refusal.bwd(p);
    expect_reason(attention_why_not(p), "attention_backward: ", refusal.reason);
    if (refusal.reason.empty()) continue;
    EXPECT_THROW(attention_workspace_size(p), Error) << refusal.reason;
    EXPECT_THROW(attention_backward(p), Error) << refusal.reason;
  }
}

TEST(Validate, SeveralReasonsAreSeveralLines) {
  AttentionFwdParams p = sound().fwd_params(Algorithm::kFlashAttn);
  p.head_dim = 12;
  p.window_left = -2;
  EXPECT_EQ(attention_why_not(p),
            "attention_forward: head_dim: expected a multiple of 8 up to 128, or 256, got 12\n"
            "attention_forward: window_left: expected at least -1, got -2");
}

TEST(Validate, OutputsMustNotOverlap) {
  AttentionFwdParams fwd = sound().fwd_params(Algorithm::kFlashAttn);
  fwd.out_row_stride = 0;
  EXPECT_EQ(attention_why_not(fwd),
            "attention_forward: out_row_stride: expected a multiple of 4 elements (16 bytes), at least 32, got 0");
  AttentionBwdParams bwd = sound().bwd_params(Algorithm::kFlashAttn);
  bwd.grad_k_head_stride = 16;
  bwd.out_row_stride = 0;  // an input here
  EXPECT_EQ(
      attention_why_not(bwd),
      "attention_backward: grad_k_head_stride: expected a multiple of 4 elements (16 bytes), at least 32, got 16");
}

#ifndef STROBE_CUDA
TEST(Validate, CudaAnswersThatThisBuildHasNoKernels) {
  for (const Algorithm algorithm : {Algorithm::kFlashAttn, Algorithm::kImpFlashAttn}) {
    AttentionFwdParams p = sound().fwd_params(algorithm);
    p.device = Device::kCUDA;
    p.dtype = DType::kBFloat16;
    EXPECT_EQ(attention_why_not(p), "attention_forward: device: this build has no CUDA kernels");
  }
}
#endif

TEST(Validate, AnUnknownInstructionSetIsAReason) {
  ASSERT_EQ(setenv("STROBE_CPU_ISA", "mmx", 1), 0);
  const AttentionFwdParams p = sound().fwd_params(Algorithm::kFlashAttn);
  EXPECT_THAT(attention_why_not(p), HasSubstr("STROBE_CPU_ISA"));
  EXPECT_THROW(attention_forward(p), Error);
  unsetenv("STROBE_CPU_ISA");
}

TEST(Validate, ARealCallNeedsItsTensors) {
  const std::string fwd = message_of<Error>([] { attention_forward(sound().fwd_params(Algorithm::kFlashAttn)); });
  EXPECT_EQ(fwd,
            "attention_forward: out: expected a pointer, got null\n"
            "attention_forward: softmax_lse: expected a pointer, got null");
  const std::string bwd = message_of<Error>([] { attention_backward(sound().bwd_params(Algorithm::kFlashAttn)); });
  for (const char* tensor : {"out", "softmax_lse", "grad_q", "grad_k", "grad_v"}) {
    EXPECT_THAT(bwd, HasSubstr(std::string("attention_backward: ") + tensor + ": expected a pointer, got null"));
  }
}

TEST(Validate, TensorsWithoutElementsMayBeNull) {
  const Problem empty({.batch = 0, .seqlen_q = 5, .seqlen_k = 6});
  AttentionFwdParams fwd = empty.fwd_params(Algorithm::kImpFlashAttn);
  fwd.q = fwd.k = fwd.v = nullptr;
  Workspace fwd_workspace(attention_workspace_size(fwd));
  fwd.workspace = fwd_workspace.data();
  EXPECT_NO_THROW(attention_forward(fwd));
  AttentionBwdParams bwd = empty.bwd_params(Algorithm::kImpFlashAttn);
  bwd.q = bwd.k = bwd.v = bwd.grad_out = nullptr;
  Workspace bwd_workspace(attention_workspace_size(bwd));
  bwd.workspace = bwd_workspace.data();
  EXPECT_NO_THROW(attention_backward(bwd));
}

TEST(Validate, TheWorkspaceIsThereAndAligned) {
  for (const Algorithm algorithm : {Algorithm::kFlashAttn, Algorithm::kImpFlashAttn}) {
    AttentionFwdParams p = sound().fwd_params(algorithm);
    std::vector<float> out(3 * 5 * 4 * 32 + 4), lse(3 * 5 * 4);
    p.out = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(out.data()) + 15) / 16 * 16);
    p.softmax_lse = lse.data();
    if (attention_workspace_size(p) == 0) continue;
    EXPECT_THAT(message_of<Error>([&] { attention_forward(p); }), HasSubstr("256-byte aligned, got null"));
    p.workspace = reinterpret_cast<void*>(0x1010);
    EXPECT_THAT(message_of<Error>([&] { attention_forward(p); }),
                HasSubstr("256-byte aligned, got an address that is not"));
    EXPECT_EQ(out, std::vector<float>(out.size())) << "a refused call wrote";
  }
}

TEST(Validate, CuSeqlensThatTheCpuCanRead) {
  AttentionFwdParams p = sound().fwd_params(Algorithm::kFlashAttn);
  std::vector<float> out(6 * 4 * 32 + 4), lse(6 * 4);
  p.out = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(out.data()) + 15) / 16 * 16);
  p.softmax_lse = lse.data();
  p.total_q = p.total_k = 6;
  const int32_t good[] = {0, 2, 4, 6}, no_zero[] = {1, 2, 4, 6}, backwards[] = {0, 4, 2, 6}, too_many[] = {0, 2, 4, 7},
                too_long[] = {0, 0, 0, 6};
  const auto error = [&](const int32_t* cu_seqlens_q) {
    p.cu_seqlens_q = cu_seqlens_q;
    p.cu_seqlens_k = good;
    return message_of<Error>([&] { attention_forward(p); });
  };
  EXPECT_THAT(error(no_zero), HasSubstr("cu_seqlens_q: expected a first value of 0, got 1"));
  EXPECT_THAT(error(backwards),
              HasSubstr("cu_seqlens_q: expected sequences of 0 to seqlen = 5 tokens, got -2 for sequence 1"));
  EXPECT_THAT(error(too_long),
              HasSubstr("cu_seqlens_q: expected sequences of 0 to seqlen = 5 tokens, got 6 for sequence 2"));
  EXPECT_THAT(error(too_many), HasSubstr("cu_seqlens_q: expected a last value of at most total = 6, got 7"));
}

}  // namespace
}  // namespace strobe::testing
