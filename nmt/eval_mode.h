// Evaluation inside training.
#pragma once

#include <c10/core/GradMode.h>
#include <torch/nn/module.h>

namespace strobe::nmt {

/// Eval mode and no gradients while it lives; puts the module's mode back.
class EvalModeGuard {
 public:
  explicit EvalModeGuard(torch::nn::Module& module) : module_(module), was_training_(module.is_training()) {
    module_.eval();
  }
  ~EvalModeGuard() { module_.train(was_training_); }
  EvalModeGuard(const EvalModeGuard&) = delete;
  EvalModeGuard& operator=(const EvalModeGuard&) = delete;

 private:
  const c10::NoGradGuard no_grad_;
  torch::nn::Module& module_;
  bool was_training_;
};

}  // namespace strobe::nmt
