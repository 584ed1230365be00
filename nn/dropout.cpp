#include "nn/dropout.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/add.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/threshold_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <mutex>

#include "nn/dropout_kernels.h"
#include "strobe/dropout.h"

namespace strobe::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool fused(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }

/// One draw from torch's generator, so that its state determines every mask.
DropoutDraw new_draw(double p) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return {at::check_generator<at::CPUGeneratorImpl>(generator)->random64(), dropout_threshold(p)};
}

/// Calls range(begin, end) on all threads; the result does not depend on how many there are.
template <typename Range>
void parallel_blocks(int64_t elements, const Range& range) {
  constexpr int64_t kGrainBlocks = 256;  // 32768 elements: less is not worth waking a thread
  const int64_t blocks = (elements + kDropoutBlock - 1) / kDropoutBlock;
  at::parallel_for(0, blocks, kGrainBlocks, [&](int64_t begin, int64_t end) {
    range(begin * kDropoutBlock, std::min(end * kDropoutBlock, elements));
  });
}

at::Tensor apply_dropout(const DropoutDraw& draw, const at::Tensor& x) {
  const at::Tensor input = x.contiguous();
  at::Tensor out = at::empty_like(input);
  const float* from = input.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  parallel_blocks(input.numel(), [&](int64_t begin, int64_t end) { dropout_range(draw, begin, end, from, to); });
  return out;
}

void save(AutogradContext* context, const DropoutDraw& draw) {
  context->saved_data["seed"] = static_cast<int64_t>(draw.seed);
  context->saved_data["threshold"] = static_cast<int64_t>(draw.threshold);
}

DropoutDraw saved_draw(AutogradContext* context) {
  return {static_cast<uint64_t>(context->saved_data["seed"].toInt()),
          static_cast<uint32_t>(context->saved_data["threshold"].toInt())};
}

struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, double p) {
    const DropoutDraw draw = new_draw(p);
    save(context, draw);
    return apply_dropout(draw, x);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {apply_dropout(saved_draw(context), gradients[0]), at::Tensor()};
  }
};

struct AddDropout : torch::autograd::Function<AddDropout> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& residual, const at::Tensor& x, double p) {
    const DropoutDraw draw = new_draw(p);
    save(context, draw);
    const at::Tensor to_add = residual.contiguous(), input = x.contiguous();
    at::Tensor out = at::empty_like(input);
    const float *a = to_add.const_data_ptr<float>(), *from = input.const_data_ptr<float>();
    float* to = out.mutable_data_ptr<float>();
    parallel_blocks(input.numel(),
                    [&](int64_t begin, int64_t end) { add_dropout_range(draw, begin, end, a, from, to); });
    return out;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {gradients[0], apply_dropout(saved_draw(context), gradients[0]), at::Tensor()};
  }
};

struct ReluDropout : torch::autograd::Function<ReluDropout> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, double p) {
    const DropoutDraw draw = new_draw(p);
    const at::Tensor input = x.contiguous();
    at::Tensor out = at::empty_like(input);
    const float* from = input.const_data_ptr<float>();
    float* to = out.mutable_data_ptr<float>();
    parallel_blocks(input.numel(), [&](int64_t begin, int64_t end) { relu_dropout_range(draw, begin, end, from, to); });
    context->saved_data["scale"] = static_cast<double>(dropout_scale(draw.threshold));
    context->save_for_backward({out});
    return out;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    // What was dropped and what was not positive are both 0 in the output: it is mask enough.
    const at::Tensor out = context->get_saved_variables()[0];
    at::Tensor gradient = at::threshold_backward(gradients[0], out, 0);
    return {gradient.mul_(context->saved_data["scale"].toDouble()), at::Tensor()};
  }
};

}  // namespace

at::Tensor dropout(const at::Tensor& x, double p, bool training) {
  if (!training || p == 0.0) return x;
  return fused(x) ? Dropout::apply(x, p) : at::dropout(x, p, true);
}

at::Tensor add_dropout(const at::Tensor& residual, const at::Tensor& x, double p, bool training) {
  if (!training || p == 0.0) return at::add(residual, x);
  const bool same_shape = residual.sizes() == x.sizes();
  return fused(x) && fused(residual) && same_shape ? AddDropout::apply(residual, x, p)
                                                   : at::add(residual, at::dropout(x, p, true));
}

at::Tensor relu_dropout(const at::Tensor& x, double p, bool training) {
  if (!training || p == 0.0) return x.relu();
  return fused(x) ? ReluDropout::apply(x, p) : at::dropout(x.relu(), p, true);
}

}  // namespace strobe::nn
