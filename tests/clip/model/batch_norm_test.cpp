// Batch norm over several processes, which threads stand for, against batch norm of the whole batch.
#include "clip/model/batch_norm.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <barrier>
#include <thread>

namespace strobe::clip {
namespace {

constexpr int64_t kChannels = 6;

class Gathering {
 public:
  GatherRows of_rank(std::size_t rank) {
    return [this, rank](const at::Tensor& row) {
      rows_[rank] = row.clone();
      barrier_.arrive_and_wait();
      const at::Tensor all = at::stack(std::vector<at::Tensor>(rows_.begin(), rows_.end()));
      barrier_.arrive_and_wait();
      return all;
    };
  }

 private:
  std::array<at::Tensor, 2> rows_;
  std::barrier<> barrier_{2};
};

struct Results {
  at::Tensor out, dx, dweight, dbias, running_mean, running_var;
};

Results run(BatchNorm& norm, const at::Tensor& input, const at::Tensor& grad_out) {
  const at::Tensor x = input.detach().clone().set_requires_grad(true);
  const auto parameters = norm->named_parameters();
  const at::Tensor out = norm->forward(x);
  const auto gradients = torch::autograd::grad({out}, {x, parameters["weight"], parameters["bias"]}, {grad_out});
  const auto buffers = norm->named_buffers();
  return {out.detach(), gradients[0], gradients[1], gradients[2], buffers["running_mean"], buffers["running_var"]};
}

BatchNorm norm_with_weights() {
  at::manual_seed(4);
  BatchNorm norm(kChannels);
  norm->to(at::kDouble);
  for (const at::Tensor& parameter : norm->parameters()) {
    parameter.set_data(at::randn({kChannels}, at::kDouble));
  }
  return norm;
}

void expect_near(const at::Tensor& found, const at::Tensor& expected) {
  EXPECT_LE((found - expected).abs().max().item<double>(), 1e-12);
}

TEST(BatchNormTest, OverAllProcessesIsThatOfTheWholeBatch) {
  at::manual_seed(5);
  const at::Tensor x = at::randn({7, kChannels, 3, 5}, at::kDouble) * 2 + 3;
  const at::Tensor grad_out = at::randn({7, kChannels, 3, 5}, at::kDouble);
  BatchNorm whole = norm_with_weights();
  const Results expected = run(whole, x, grad_out);

  const std::vector<int64_t> parts = {2, 5};  // of unequal size
  const auto xs = x.split_with_sizes(parts), grads = grad_out.split_with_sizes(parts);
  Gathering gathering;
  std::array<BatchNorm, 2> norms = {norm_with_weights(), norm_with_weights()};
  std::array<Results, 2> found;
  const auto rank = [&](std::size_t i) {
    norms[i]->synchronise(gathering.of_rank(i));
    found[i] = run(norms[i], xs[i], grads[i]);
  };
  std::thread other(rank, 1);
  rank(0);
  other.join();

  expect_near(at::cat({found[0].out, found[1].out}), expected.out);
  expect_near(at::cat({found[0].dx, found[1].dx}), expected.dx);
  expect_near(found[0].dweight + found[1].dweight, expected.dweight);
  expect_near(found[0].dbias + found[1].dbias, expected.dbias);
  for (const Results& results : found) {
    expect_near(results.running_mean, expected.running_mean);
    expect_near(results.running_var, expected.running_var);
  }
}

TEST(BatchNormTest, EvaluationAsksNobody) {
  BatchNorm norm = norm_with_weights();
  norm->synchronise([](const at::Tensor&) -> at::Tensor { throw std::logic_error("asked"); });
  norm->eval();
  EXPECT_NO_THROW(norm->forward(at::randn({2, kChannels, 3, 3}, at::kDouble)));
}

}  // namespace
}  // namespace strobe::clip
