#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>

#include <new>

#include "tests/train/distributed_ranks.h"
#include "tests/train/tiny_task.h"
#include "train/distributed/gradient_reducer.h"

namespace strobe::train {
namespace {

constexpr int64_t kLarge = 100000;  // floats: more than the reducer copies

TEST(Communicator, SumsBroadcastsAndGathers) {
  const int64_t n = ranks->size();
  at::Tensor values = at::arange(3, at::device(device).dtype(at::kDouble)).add(ranks->rank());
  const at::Tensor own = values.clone();
  ranks->sum(values);
  const double offset = static_cast<double>(n * (n - 1)) / 2;
  EXPECT_TRUE(at::equal(values.cpu(), at::arange(3, at::kDouble).mul(n).add(offset)));
  at::Tensor first = own.clone();
  ranks->broadcast(first);
  EXPECT_TRUE(at::equal(first.cpu(), at::arange(3, at::kDouble)));
  const at::Tensor all = ranks->all_gather(own);
  ASSERT_EQ(all.sizes(), (at::IntArrayRef{n, 3}));
  for (int64_t r = 0; r < n; ++r) EXPECT_EQ(all[r][0].item<double>(), static_cast<double>(r));
  EXPECT_EQ(ranks->max(10 * ranks->rank()), 10 * (n - 1));
  EXPECT_EQ(ranks->min(7 + ranks->rank()), 7);
}

TEST(Communicator, GivesEveryoneTheStateOfRankZero) {
  TinyTask::Options options;
  options.device = device;
  TinyTask task(options), twin(options);
  const at::Tensor expected = flat_weights(twin.model());
  const at::NoGradGuard no_grad;
  for (at::Tensor tensor : task.model().parameters()) tensor.add_(ranks->rank());
  for (at::Tensor tensor : task.model().buffers()) tensor.add_(ranks->rank());
  ranks->broadcast_state(task.model());
  EXPECT_TRUE(at::equal(flat_weights(task.model()), expected));
  EXPECT_TRUE(at::equal(task.model().buffers()[0], twin.model().buffers()[0]));
}

/// Rank r has the gradients (r + 1) * (1 + j) of micro-step j; the last rank has no batch in the last micro-step.
TEST(GradientReducer, SumsOverRanksAndMicroSteps) {
  const auto options = at::device(device).dtype(at::kDouble);
  at::Tensor a = at::full({300, 300}, 2.0, options).set_requires_grad(true);  // large, b small
  at::Tensor b = at::full({5}, 3.0, options).set_requires_grad(true);
  GradientReducer reducer({{"a", a}, {"b", b}}, *ranks);
  const int n = ranks->size();
  for (int update = 0; update < 3; ++update) {  // the buckets are filled again
    constexpr int kMicroSteps = 2;
    double expected = 0;
    for (int j = 0; j < kMicroSteps; ++j) {
      const bool is_last = j == kMicroSteps - 1;
      const bool is_empty = is_last && ranks->rank() == n - 1;
      const at::Tensor loss = (a.sum() + 2 * b.sum()) * static_cast<double>((ranks->rank() + 1) * (1 + j));
      is_last ? reducer.backward_and_sum(is_empty ? at::Tensor() : loss) : reducer.backward(loss);
      if (!is_last) {
        EXPECT_EQ(b.grad()[0].item<double>(), 2.0 * (ranks->rank() + 1));
      }
      for (int r = 0; r < n; ++r) expected += is_last && r == n - 1 ? 0 : (r + 1) * (1 + j);
    }
    EXPECT_TRUE(at::equal(a.grad(), at::full_like(a, expected)));
    EXPECT_TRUE(at::equal(b.grad(), at::full_like(b, 2 * expected)));
    a.mutable_grad().reset();
    b.mutable_grad().reset();
  }
}

TEST(GradientReducer, UnusedParametersCountAsZeros) {
  const auto options = at::device(device).dtype(at::kFloat);
  at::Tensor a = at::full({kLarge}, 1.0, options).set_requires_grad(true);
  at::Tensor b = at::full({4}, 1.0, options).set_requires_grad(true);
  GradientReducer reducer({{"a", a}, {"b", b}}, *ranks);
  for (int update = 0; update < 3; ++update) {
    reducer.backward_and_sum(ranks->rank() == update % 2 ? a.sum() : b.sum());  // ranks beyond 1 use b
    const int64_t users_of_a = 1;
    EXPECT_TRUE(at::equal(a.grad(), at::full_like(a, users_of_a)));
    EXPECT_TRUE(at::equal(b.grad(), at::full_like(b, ranks->size() - users_of_a)));
    a.mutable_grad().reset();
    b.mutable_grad().reset();
  }
}

TEST(GradientReducer, TakesGradientsOfAnyLayout) {
  const auto options = at::device(device).dtype(at::kFloat);
  at::Tensor points = at::randn({4, 3, 1, 1}, options).set_requires_grad(true);
  at::Tensor squares =
      at::randn({4, 3, 2, 2}, options).contiguous(at::MemoryFormat::ChannelsLast).set_requires_grad(true);
  GradientReducer reducer({{"points", points}, {"squares", squares}}, *ranks);
  const at::Tensor x = at::arange(12, options).view({4, 3, 1, 1}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor y = at::arange(48, options).view({4, 3, 2, 2});
  reducer.backward_and_sum((points * x).sum() + (squares * y).sum());
  EXPECT_TRUE(at::equal(points.grad(), x * ranks->size()));
  EXPECT_TRUE(at::equal(squares.grad(), y * ranks->size()));
  EXPECT_EQ(squares.grad().strides(), squares.strides());
}

TEST(GradientReducer, GradientsThatShareMemoryAreSummedOnce) {
  const auto options = at::device(device).dtype(at::kFloat);
  at::Tensor a = at::full({kLarge}, 1.0, options).set_requires_grad(true);
  at::Tensor b = at::full({kLarge, 1}, 1.0, options).set_requires_grad(true);
  at::Tensor c = at::full({2, kLarge}, 1.0, options).set_requires_grad(true);
  GradientReducer reducer({{"a", a}, {"b", b}, {"c", c}}, *ranks);
  const at::Tensor x = at::arange(kLarge, options).remainder(1000);
  reducer.backward_and_sum(((a + b.view({-1}) + c[0] + (a * c[1])) * x).sum());
  EXPECT_TRUE(at::equal(a.grad(), 2 * x * ranks->size()));
  EXPECT_TRUE(at::equal(b.grad(), (x * ranks->size()).view({-1, 1})));
  EXPECT_TRUE(at::equal(c.grad(), (x * ranks->size()).expand({2, kLarge})));
}

/// Passes its input on; its backward finds no memory.
struct NoMemory : torch::autograd::Function<NoMemory> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& input) { return input.clone(); }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list&) {
    throw std::bad_alloc();
  }
};

TEST(GradientReducer, MemoryThatRunsOutInBackwardLeavesNobodyWaiting) {
  const auto options = at::device(device).dtype(at::kFloat);
  at::Tensor a = at::full({kLarge}, 1.0, options).set_requires_grad(true);
  at::Tensor b = at::full({4}, 1.0, options).set_requires_grad(true);
  GradientReducer reducer({{"a", a}, {"b", b}}, *ranks);
  for (int update = 0; update < 3; ++update) {
    const bool fails = update == 1 && ranks->rank() == 0;
    const at::Tensor loss = b.sum() + (fails ? NoMemory::apply(a) : a).sum();
    if (fails) {
      EXPECT_THROW(reducer.backward_and_sum(loss), std::bad_alloc);
    } else {
      reducer.backward_and_sum(loss);
      if (update != 1) {
        EXPECT_TRUE(at::equal(a.grad(), at::full_like(a, ranks->size())));
      }
    }
    a.mutable_grad().reset();
    b.mutable_grad().reset();
  }
}

}  // namespace
}  // namespace strobe::train
