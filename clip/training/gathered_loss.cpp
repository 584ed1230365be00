#include "clip/training/gathered_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/custom_function.h>

namespace strobe::clip {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The own pairs' logits in rows of all.
at::Tensor own_pairs(const at::Tensor& logits, int64_t rank) {
  return logits.narrow(1, rank * logits.size(0), logits.size(0)).diagonal();
}

at::Tensor count_right(const at::Tensor& logits, int64_t rank) {
  const int64_t first = rank * logits.size(0);
  return logits.argmax(1).eq(at::arange(first, first + logits.size(0), logits.device())).sum().to(logits.scalar_type());
}

/// Of the summed cross entropies of rows and of columns, with the logits: softmax over a row + softmax over a column -
/// 2 for the pair itself.
at::Tensor gradient(const at::Tensor& logits, const at::Tensor& own_lse, const at::Tensor& all_lse, int64_t rank) {
  at::Tensor result = (logits - own_lse.unsqueeze(1)).exp_().add_((logits - all_lse).exp_());
  own_pairs(result, rank).sub_(2);
  return result;
}

struct Function : torch::autograd::Function<Function> {
  /// -> loss, share of the images, share of the texts.
  static variable_list forward(AutogradContext* context, const at::Tensor& image, const at::Tensor& text,
                               const at::Tensor& scale, const GatheredPairs& pairs, double factor, bool accuracy,
                               const std::shared_ptr<train::Communicator>& ranks) {
    const int64_t batch = image.size(0), rank = ranks->rank();
    const at::Tensor image_logits = at::matmul(image * scale, pairs.all_texts.t());
    const at::Tensor text_logits = at::matmul(text * scale, pairs.all_images.t());
    const at::Tensor image_lse = at::logsumexp(image_logits, 1), text_lse = at::logsumexp(text_logits, 1);
    std::vector<at::Tensor> sums = {(image_lse + text_lse - 2 * own_pairs(image_logits, rank)).sum()};
    if (accuracy) {
      sums.push_back(count_right(image_logits, rank));
      sums.push_back(count_right(text_logits, rank));
    }
    const at::Tensor parts = ranks->all_gather(at::cat({image_lse, text_lse, at::stack(sums)}));
    context->save_for_backward({image, text, scale, pairs.all_images, pairs.all_texts, image_logits, text_logits,
                                parts.narrow(1, 0, batch).flatten(), parts.narrow(1, batch, batch).flatten()});
    context->saved_data["factor"] = factor;
    context->saved_data["rank"] = rank;
    const auto pairs_of_all = static_cast<double>(pairs.all_images.size(0));
    const at::Tensor totals = parts.narrow(1, 2 * batch, parts.size(1) - 2 * batch).sum(0) / pairs_of_all;
    variable_list outputs = {totals[0] / 2};
    for (int64_t i = 1; i < totals.size(0); ++i) outputs.push_back(totals[i]);
    context->mark_non_differentiable(variable_list(outputs.begin() + 1, outputs.end()));
    return outputs;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &image = saved[0], &scale = saved[2], &all_images = saved[3], &all_texts = saved[4];
    const at::Tensor &image_lse = saved[7], &text_lse = saved[8];
    const int64_t rank = context->saved_data["rank"].toInt(), batch = image.size(0);
    const auto own = [&](const at::Tensor& lse) { return lse.narrow(0, rank * batch, batch); };
    const at::Tensor mean = gradients[0] / (2 * static_cast<double>(all_images.size(0)));
    const at::Tensor each = mean * scale * context->saved_data["factor"].toDouble();

    const at::Tensor of_images = gradient(saved[5], own(image_lse), text_lse, rank);
    const at::Tensor dimage = at::matmul(of_images, all_texts) * each;
    const at::Tensor dscale =
        (of_images * saved[5]).sum() / scale * mean * static_cast<double>(all_images.size(0) / batch);
    const at::Tensor dtext = at::matmul(gradient(saved[6], own(text_lse), image_lse, rank), all_images) * each;
    return {dimage, dtext, dscale, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

GatheredLoss gathered_loss(const GatheredPairs& pairs, double factor, bool accuracy,
                           const std::shared_ptr<train::Communicator>& ranks) {
  const variable_list outputs = Function::apply(pairs.image, pairs.text, pairs.scale, pairs, factor, accuracy, ranks);
  if (!accuracy) return {outputs[0], {}, {}};
  return {outputs[0], outputs[1], outputs[2]};
}

}  // namespace strobe::clip
