#include "train/optimizer.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace strobe::train {
namespace {

using ::testing::HasSubstr;

at::Tensor parameter(at::IntArrayRef sizes, at::ScalarType dtype = at::kDouble) {
  return at::ones(sizes, dtype).requires_grad_();
}

void set_gradient(at::Tensor& tensor, double value) {
  tensor.mutable_grad() = at::full(tensor.sizes(), value, tensor.options().requires_grad(false));
}

/// Algorithm 1 of Kingma & Ba with a constant gradient and the decays of both variants, for one weight of value 1.
double adam_by_hand(const OptimizerOptions& options, double gradient, double lr, int steps) {
  double weight = 1, m = 0, v = 0;
  for (int t = 1; t <= steps; ++t) {
    double g = gradient;
    if (options.kind == OptimizerOptions::Kind::kAdamW) weight -= lr * options.weight_decay * weight;
    if (options.kind == OptimizerOptions::Kind::kAdam) g += options.weight_decay * weight;
    m = options.beta1 * m + (1 - options.beta1) * g;
    v = options.beta2 * v + (1 - options.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(options.beta1, t)), v_hat = v / (1 - std::pow(options.beta2, t));
    weight -= lr * m_hat / (std::sqrt(v_hat) + options.eps);
  }
  return weight;
}

TEST(Optimizer, FollowsThePapers) {
  for (const auto kind : {OptimizerOptions::Kind::kAdam, OptimizerOptions::Kind::kAdamW}) {
    OptimizerOptions options;
    options.kind = kind;
    options.weight_decay = 0.1;
    options.eps = 1e-3;
    at::Tensor weight = parameter({2, 2}), bias = parameter({2});
    Optimizer optimizer({{"bias", bias}, {"weight", weight}}, options);
    for (int step = 0; step < 10; ++step) {
      set_gradient(weight, 0.3);
      set_gradient(bias, 0.3);
      optimizer.step(0.01);
    }
    EXPECT_NEAR(weight[1][1].item<double>(), adam_by_hand(options, 0.3, 0.01, 10), 1e-14);
    options.weight_decay = 0;  // not for biases
    EXPECT_NEAR(bias[1].item<double>(), adam_by_hand(options, 0.3, 0.01, 10), 1e-14);
  }
}

TEST(Optimizer, FoundInfLeavesEverythingAsItWas) {
  at::Tensor weight = parameter({2, 2});
  Optimizer optimizer({{"weight", weight}}, {});
  const auto state = [&] { return optimizer.state_dict().at("state").as_dict().at(int64_t{0}).as_dict(); };
  set_gradient(weight, 0.3);
  optimizer.step(0.01, at::zeros({}));
  const at::Tensor before = weight.detach().clone(), average = state().at("exp_avg").as_tensor().clone();
  set_gradient(weight, std::nan(""));
  optimizer.step(0.01, at::ones({}));
  EXPECT_TRUE(at::equal(weight, before));
  EXPECT_TRUE(at::equal(state().at("exp_avg").as_tensor(), average));
  EXPECT_EQ(state().at("step").as_tensor().item<double>(), 1.0);
}

TEST(Optimizer, UpdatesTiedWeightsOnceAndFrozenOnesNever) {
  at::Tensor tied = parameter({2, 2}), twin = parameter({2, 2}), frozen = at::ones({2, 2}), idle = parameter({2});
  Optimizer optimizer({{"a", tied}, {"b", tied}, {"frozen", frozen}, {"idle", idle}}, {});
  Optimizer plain({{"a", twin}}, {});
  set_gradient(tied, 0.5);
  set_gradient(twin, 0.5);
  optimizer.step(0.1);
  plain.step(0.1);
  EXPECT_TRUE(at::equal(tied, twin));
  EXPECT_TRUE(at::equal(idle, at::ones({2}, at::kDouble)));
  EXPECT_EQ(optimizer.state_dict().at("state").as_dict().size(), 2u);
}

TEST(Optimizer, MixesDtypes) {
  at::Tensor single = parameter({3, 3}, at::kFloat), wide = parameter({3, 3});
  Optimizer optimizer({{"single", single}, {"wide", wide}}, {});
  set_gradient(single, 0.5);
  set_gradient(wide, 0.5);
  optimizer.step(0.1);
  EXPECT_NEAR(single[0][0].item<double>(), wide[0][0].item<double>(), 1e-6);
  EXPECT_LT(wide[0][0].item<double>(), 1.0);
}

TEST(Optimizer, RefusesAStateOfOtherParameters) {
  at::Tensor weight = parameter({2, 2}), other = parameter({3, 2});
  Optimizer optimizer({{"weight", weight}}, {}), misshaped({{"weight", other}}, {}),
      longer({{"a", weight}, {"b", other}}, {});
  const Dict state = optimizer.state_dict();
  const auto error = [&](Optimizer& target) -> std::string {
    try {
      target.load_state_dict(state);
    } catch (const CheckpointError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(error(misshaped), HasSubstr("exp_avg of weight"));
  EXPECT_THAT(error(longer), HasSubstr("expected 2 parameters, found 1"));
}

TEST(Optimizer, TakesStepCountsThatAreNumbers) {
  at::Tensor weight = parameter({2, 2});
  Optimizer optimizer({{"weight", weight}}, {});
  Dict state = optimizer.state_dict(), slots;
  Dict slot = state.at("state").as_dict().at(int64_t{0}).as_dict();
  slot["step"] = 7;  // as torch wrote them before 1.12
  slots[int64_t{0}] = std::move(slot);
  state["state"] = std::move(slots);
  optimizer.load_state_dict(state);
  const Dict now = optimizer.state_dict();
  EXPECT_EQ(now.at("state").as_dict().at(int64_t{0}).as_dict().at("step").as_tensor().item<double>(), 7.0);
}

TEST(Clipping, ScalesAndBoundsTheJointNorm) {
  const std::vector<at::Tensor> gradients = {at::full({2}, 6.0, at::kDouble), at::full({1}, 8.0, at::kDouble)};
  const double norm = std::sqrt(6 * 6 + 6 * 6 + 8 * 8);
  const at::Tensor found = gradient_norm(gradients);
  EXPECT_NEAR(found.item<double>(), norm, 1e-14 * norm);
  scale_and_clip(gradients, found, at::full({}, 0.5, at::kDouble), 0.0);
  EXPECT_EQ(gradients[1].item<double>(), 4.0);
  scale_and_clip(gradients, gradient_norm(gradients), at::full({}, 0.5, at::kDouble), 1.0);
  EXPECT_NEAR(gradient_norm(gradients).item<double>(), 1.0, 1e-6);  // the norm's 1e-6 in the quotient
  scale_and_clip(gradients, gradient_norm(gradients), at::full({}, 1.0, at::kDouble), 100.0);
  EXPECT_NEAR(gradient_norm(gradients).item<double>(), 1.0, 1e-6);
}

}  // namespace
}  // namespace strobe::train
