// What only a CUDA device has: capture in graphs, grids, memory beyond 2^31 elements, paths.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "src/attention/cuda/device.h"
#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

using ::testing::HasSubstr;

/// Zeroed device memory.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) {
    if (cudaMalloc(&data_, bytes + 1) != cudaSuccess || cudaMemset(data_, 0, bytes + 1) != cudaSuccess) {
      throw std::bad_alloc();
    }
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* get() const { return data_; }
  template <class T>
  T* as(int64_t offset = 0) const {
    return static_cast<T*>(data_) + offset;
  }

 private:
  void* data_ = nullptr;
};

TEST(Cuda, MoreThan65535Heads) {
  AttentionCase c{.batch = 1025, .seqlen_q = 2, .seqlen_k = 3, .num_heads_q = 64, .num_heads_k = 32, .head_dim = 8};
  c.dtype = DType::kBFloat16;
  check_case(c);
}

/// A forward and a backward call on buffers of one head dim of 64, to be captured.
class CapturedCalls {
 public:
  explicit CapturedCalls(bool deterministic) : deterministic_(deterministic) {
    std::vector<uint16_t> values(kElements);
    for (int e = 0; e < kElements; ++e) values[e] = static_cast<uint16_t>(0x3C00 + e * 7919 % 1024);  // fp16, 1 to 2
    for (const Buffer* b : {&q_, &k_, &v_, &grad_out_}) {
      EXPECT_EQ(cudaMemcpy(b->get(), values.data(), kElements * 2, cudaMemcpyHostToDevice), cudaSuccess);
    }
    EXPECT_EQ(cudaStreamCreate(&stream_), cudaSuccess);
    set(fwd_);
    fwd_.out = out_.get();
    fwd_.softmax_lse = lse_.as<float>();
    set(bwd_);
    bwd_.out = out_.get();
    bwd_.softmax_lse = lse_.as<float>();
    bwd_.grad_out = grad_out_.get();
    bwd_.deterministic = deterministic;
    bwd_.grad_q = grad_q_.get(), bwd_.grad_k = grad_k_.get(), bwd_.grad_v = grad_v_.get();
    strides(bwd_.grad_out_batch_stride, bwd_.grad_out_row_stride, bwd_.grad_out_head_stride);
    strides(bwd_.grad_q_batch_stride, bwd_.grad_q_row_stride, bwd_.grad_q_head_stride);
    strides(bwd_.grad_k_batch_stride, bwd_.grad_k_row_stride, bwd_.grad_k_head_stride);
    strides(bwd_.grad_v_batch_stride, bwd_.grad_v_row_stride, bwd_.grad_v_head_stride);
    EXPECT_LE(attention_workspace_size(bwd_), kWorkspace);
    bwd_.workspace = workspace_.get();
  }
  ~CapturedCalls() { cudaStreamDestroy(stream_); }
  CapturedCalls(const CapturedCalls&) = delete;
  CapturedCalls& operator=(const CapturedCalls&) = delete;

  void run() const {
    attention_forward(fwd_);
    attention_backward(bwd_);
  }
  void set_seed(uint64_t seed) const {
    const uint64_t state[] = {seed, 3};
    EXPECT_EQ(cudaMemcpy(rng_.get(), state, sizeof(state), cudaMemcpyHostToDevice), cudaSuccess);
  }
  cudaStream_t stream() const { return stream_; }
  /// The output and, where they are repeatable, dQ; dK and dV always are.
  std::vector<std::vector<uint16_t>> results() const {
    std::vector<std::vector<uint16_t>> all;
    for (const Buffer* b : {&out_, &grad_k_, &grad_v_, &grad_q_}) {
      if (b == &grad_q_ && !deterministic_) continue;
      all.emplace_back(kElements);
      EXPECT_EQ(cudaMemcpy(all.back().data(), b->get(), kElements * 2, cudaMemcpyDeviceToHost), cudaSuccess);
    }
    return all;
  }

 private:
  static constexpr int kBatch = 2, kLength = 300, kHeads = 2, kHeadDim = 64;
  static constexpr int kElements = kBatch * kLength * kHeads * kHeadDim;
  static constexpr std::size_t kWorkspace = 4 << 20;

  template <class Params>
  void set(Params& p) const {
    p.device = Device::kCUDA;
    p.dtype = DType::kFloat16;
    p.batch = kBatch;
    p.seqlen_q = p.seqlen_k = kLength;
    p.num_heads_q = p.num_heads_k = kHeads;
    p.head_dim = kHeadDim;
    p.q = q_.get(), p.k = k_.get(), p.v = v_.get();
    strides(p.q_batch_stride, p.q_row_stride, p.q_head_stride);
    strides(p.k_batch_stride, p.k_row_stride, p.k_head_stride);
    strides(p.v_batch_stride, p.v_row_stride, p.v_head_stride);
    strides(p.out_batch_stride, p.out_row_stride, p.out_head_stride);
    p.softmax_scale = 0.125f;
    p.dropout_p = 0.25;
    p.rng_state = rng_.as<uint64_t>();
    p.stream = stream_;
  }
  static void strides(int64_t& batch, int64_t& row, int64_t& head) {
    head = kHeadDim;
    row = kHeads * kHeadDim;
    batch = kLength * row;
  }

  bool deterministic_;
  Buffer q_{kElements * 2}, k_{kElements * 2}, v_{kElements * 2}, out_{kElements * 2}, grad_out_{kElements * 2};
  Buffer grad_q_{kElements * 2}, grad_k_{kElements * 2}, grad_v_{kElements * 2};
  Buffer lse_{kBatch * kHeads * kLength * 4}, rng_{16}, workspace_{kWorkspace};
  cudaStream_t stream_ = nullptr;
  AttentionFwdParams fwd_;
  AttentionBwdParams bwd_;
};

/// A captured graph replays the calls, reads the state of the draws anew, and its backward has its forward's mask.
TEST(Cuda, GraphsDrawAnewAtEachReplay) {
  for (const bool deterministic : {true, false}) {
    const CapturedCalls calls(deterministic);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(calls.stream(), cudaStreamCaptureModeGlobal), cudaSuccess);
    calls.run();
    ASSERT_EQ(cudaStreamEndCapture(calls.stream(), &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    std::vector<std::vector<std::vector<uint16_t>>> replayed;
    for (const uint64_t seed : {1, 2, 1}) {
      calls.set_seed(seed);
      ASSERT_EQ(cudaGraphLaunch(executable, calls.stream()), cudaSuccess);
      ASSERT_EQ(cudaStreamSynchronize(calls.stream()), cudaSuccess);
      replayed.push_back(calls.results());
      calls.run();  // the same outside of the graph
      ASSERT_EQ(cudaStreamSynchronize(calls.stream()), cudaSuccess);
      EXPECT_EQ(calls.results(), replayed.back());
    }
    EXPECT_NE(replayed[0], replayed[1]);
    EXPECT_EQ(replayed[0], replayed[2]);
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
  }
}

/// Two heads and two rows more than 2^31 elements apart, in one buffer that all tensors share.
TEST(Cuda, OffsetsBeyond32Bits) {
  constexpr int64_t kFar = (int64_t{1} << 31) + 64, kTensor = 16;                          // elements
  constexpr int64_t kStart[] = {0, kFar, 2 * kFar + 8 * kTensor, 3 * kFar + 8 * kTensor};  // of (row, head)
  const Buffer far(static_cast<std::size_t>(2 * (kStart[3] + 8 * kTensor)));
  const Buffer near(8 * 4 * kTensor * 2), lse(4 * 4), workspace(1 << 16);
  const auto run = [&](const Buffer& buffer, int64_t tensor_step, int64_t row_stride, int64_t head_stride) {
    const auto data = [&](int tensor) { return buffer.as<uint16_t>(tensor * tensor_step); };
    for (int tensor : {0, 1, 2, 4}) {  // q, k, v, grad_out
      for (int64_t place = 0; place < 4; ++place) {
        std::vector<uint16_t> values(kTensor);
        for (int e = 0; e < kTensor; ++e)
          values[e] = static_cast<uint16_t>(0x3C00 + (tensor * 64 + place * 16 + e) * 37 % 1024);
        EXPECT_EQ(cudaMemcpy(data(tensor) + place / 2 * row_stride + place % 2 * head_stride, values.data(),
                             2 * kTensor, cudaMemcpyHostToDevice),
                  cudaSuccess);
      }
    }
    const auto set = [&](auto& p) {
      p.device = Device::kCUDA;
      p.dtype = DType::kFloat16;
      p.batch = 1, p.seqlen_q = p.seqlen_k = p.num_heads_q = p.num_heads_k = 2, p.head_dim = kTensor;
      p.q = data(0), p.k = data(1), p.v = data(2);
      p.q_row_stride = p.k_row_stride = p.v_row_stride = p.out_row_stride = row_stride;
      p.q_head_stride = p.k_head_stride = p.v_head_stride = p.out_head_stride = head_stride;
      p.out = data(3);
      p.softmax_lse = lse.as<float>();
      p.softmax_scale = 0.25f;
    };
    AttentionFwdParams fwd;
    set(fwd);
    attention_forward(fwd);
    AttentionBwdParams bwd;
    set(bwd);
    bwd.deterministic = true;
    bwd.grad_out = data(4), bwd.grad_q = data(5), bwd.grad_k = data(6), bwd.grad_v = data(7);
    bwd.grad_out_row_stride = bwd.grad_q_row_stride = bwd.grad_k_row_stride = bwd.grad_v_row_stride = row_stride;
    bwd.grad_out_head_stride = bwd.grad_q_head_stride = bwd.grad_k_head_stride = bwd.grad_v_head_stride = head_stride;
    bwd.workspace = workspace.get();
    attention_backward(bwd);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    std::vector<uint16_t> results;
    for (int tensor : {3, 5, 6, 7}) {
      for (int64_t place = 0; place < 4; ++place) {
        uint16_t values[kTensor];
        EXPECT_EQ(cudaMemcpy(values, data(tensor) + place / 2 * row_stride + place % 2 * head_stride, sizeof(values),
                             cudaMemcpyDeviceToHost),
                  cudaSuccess);
        results.insert(results.end(), values, values + kTensor);
      }
    }
    return results;
  };
  EXPECT_EQ(run(far, kTensor, kStart[2], kStart[1]), run(near, 4 * kTensor, 2 * kTensor, kTensor));
}

TEST(Cuda, AnUnknownPathIsAReason) {
  AttentionCase c;
  c.dtype = DType::kBFloat16;
  AttentionFwdParams p = Problem(c).fwd_params(Algorithm::kImpFlashAttn);
  p.device = Device::kCUDA;
  ASSERT_EQ(setenv("STROBE_CUDA_PATH", "sm12", 1), 0);
  EXPECT_THAT(attention_why_not(p), HasSubstr("STROBE_CUDA_PATH: expected sm75, sm80, sm86 or sm90, got sm12"));
  unsetenv("STROBE_CUDA_PATH");
  EXPECT_EQ(attention_why_not(p), "");
}

}  // namespace
}  // namespace strobe::testing
