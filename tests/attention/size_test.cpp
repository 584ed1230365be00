// Sizes that 32-bit offsets or a grid's limit would break.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "src/attention/element.h"
#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

/// The compact tensor's shape again, with every stride beyond 2^31 elements, in address space that gets memory only
/// where it is written to.
class SparseTensor {
 public:
  explicit SparseTensor(const Tensor& shape) : shape_(shape) {
    bytes_ = static_cast<std::size_t>(shape.batch * batch_stride() * element_size(shape.dtype));
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~SparseTensor() { munmap(data_, bytes_); }
  SparseTensor(const SparseTensor&) = delete;
  SparseTensor& operator=(const SparseTensor&) = delete;

  void* data() const { return data_; }
  static constexpr int64_t kHeadStride = (int64_t{1} << 31) + 64;
  int64_t row_stride() const { return shape_.heads * kHeadStride + 128; }
  int64_t batch_stride() const { return shape_.rows * row_stride(); }

  void copy_from(const Tensor& t) {
    for_each([&](int64_t b, int64_t i, int64_t h, int64_t d, int64_t index) {
      store_element(data_, shape_.dtype, index, static_cast<float>(t.get(b, i, h, d)));
    });
  }
  std::vector<double> compact() const {
    std::vector<double> result;
    for_each([&](int64_t, int64_t, int64_t, int64_t, int64_t index) {
      result.push_back(load_element(data_, shape_.dtype, index));
    });
    return result;
  }

 private:
  template <class Body>
  void for_each(Body body) const {
    for (int64_t b = 0; b < shape_.batch; ++b) {
      for (int64_t i = 0; i < shape_.rows; ++i) {
        for (int64_t h = 0; h < shape_.heads; ++h) {
          for (int64_t d = 0; d < shape_.head_dim; ++d) {
            body(b, i, h, d, b * batch_stride() + i * row_stride() + h * kHeadStride + d);
          }
        }
      }
    }
  }

  Tensor shape_;
  std::size_t bytes_;
  void* data_;
};

/// A sparse copy of a problem's tensors, and the calls on it.
class SparseProblem {
 public:
  explicit SparseProblem(const Problem& problem)
      : problem_(problem),
        q_(problem.q()),
        k_(problem.k()),
        v_(problem.v()),
        grad_out_(problem.grad_out()),
        out_(problem.grad_out()),
        grad_q_(problem.q()),
        grad_k_(problem.k()),
        grad_v_(problem.v()) {
    q_.copy_from(problem.q());
    k_.copy_from(problem.k());
    v_.copy_from(problem.v());
    grad_out_.copy_from(problem.grad_out());
  }

  Results run(const KernelSetting& kernel) {
    std::vector<float> lse(problem_.q().batch * problem_.q().heads * problem_.q().rows);
    forward(kernel.algorithm, lse.data());
    backward(kernel.algorithm, lse.data());
    return {out_.compact(), {lse.begin(), lse.end()}, grad_q_.compact(), grad_k_.compact(), grad_v_.compact()};
  }

 private:
  template <class Params>
  void set_inputs(Params& p) const {
    p.q = q_.data(), p.k = k_.data(), p.v = v_.data();
    set(q_, p.q_batch_stride, p.q_row_stride, p.q_head_stride);
    set(k_, p.k_batch_stride, p.k_row_stride, p.k_head_stride);
    set(v_, p.v_batch_stride, p.v_row_stride, p.v_head_stride);
    set(out_, p.out_batch_stride, p.out_row_stride, p.out_head_stride);
  }
  static void set(const SparseTensor& t, int64_t& batch_stride, int64_t& row_stride, int64_t& head_stride) {
    batch_stride = t.batch_stride();
    row_stride = t.row_stride();
    head_stride = SparseTensor::kHeadStride;
  }

  void forward(Algorithm algorithm, float* lse) {
    AttentionFwdParams p = problem_.fwd_params(algorithm);
    set_inputs(p);
    p.out = out_.data();
    p.softmax_lse = lse;
    Workspace workspace(attention_workspace_size(p));
    p.workspace = workspace.data();
    attention_forward(p);
  }

  void backward(Algorithm algorithm, const float* lse) {
    AttentionBwdParams p = problem_.bwd_params(algorithm);
    set_inputs(p);
    p.out = out_.data();
    p.softmax_lse = lse;
    p.grad_out = grad_out_.data();
    p.grad_q = grad_q_.data(), p.grad_k = grad_k_.data(), p.grad_v = grad_v_.data();
    set(grad_out_, p.grad_out_batch_stride, p.grad_out_row_stride, p.grad_out_head_stride);
    set(grad_q_, p.grad_q_batch_stride, p.grad_q_row_stride, p.grad_q_head_stride);
    set(grad_k_, p.grad_k_batch_stride, p.grad_k_row_stride, p.grad_k_head_stride);
    set(grad_v_, p.grad_v_batch_stride, p.grad_v_row_stride, p.grad_v_head_stride);
    Workspace workspace(attention_workspace_size(p));
    p.workspace = workspace.data();
    attention_backward(p);
  }

  const Problem& problem_;
  SparseTensor q_, k_, v_, grad_out_, out_, grad_q_, grad_k_, grad_v_;
};

TEST(Size, OffsetsBeyond32Bits) {
  for (const DType dtype : kDTypes) {
    AttentionCase c{.batch = 2, .seqlen_q = 7, .seqlen_k = 5, .num_heads_q = 2, .num_heads_k = 2, .head_dim = 16};
    c.dtype = dtype;
    const Problem problem(c);
    SparseProblem sparse(problem);
    for_each_kernel(problem.shape(), [&](const KernelSetting& kernel) {
      EXPECT_TRUE(bitwise_equal(problem.run(kernel), sparse.run(kernel))) << kernel.label;
    });
  }
}

TEST(Size, MoreThan65535Heads) {
  for (const DType dtype : kDTypes) {
    AttentionCase c{.batch = 1025, .seqlen_q = 2, .seqlen_k = 3, .num_heads_q = 64, .num_heads_k = 32, .head_dim = 8};
    c.dtype = dtype;
    check_case(c);
  }
}

}  // namespace
}  // namespace strobe::testing
