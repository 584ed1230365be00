#include "clip/training/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cosine_similarity.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include "train/precision.h"

namespace strobe::clip {
namespace {

/// Logits up to 100 have steps of 0.06 in fp16.
at::Tensor at_least_fp32(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); }

at::Tensor all_of(const at::Tensor& own, FeatureGather& gather, const LossOptions& options) {
  return options.gather_with_grad ? gather.with_gradient(own) : gather.own_first(own);
}

at::Tensor gather(const at::Tensor& features, const LossOptions& options,
                  const std::shared_ptr<train::Communicator>& ranks) {
  if (!options.aggregate) return features;
  FeatureGather under_way(features, ranks);
  return all_of(features, under_way, options);
}

at::Tensor share_right(const at::Tensor& logits, const at::Tensor& targets) {
  return logits.detach().argmax(-1).eq(targets).to(at::kFloat).mean();
}

}  // namespace

std::shared_ptr<FeatureGather> begin_image_gather(const at::Tensor& image, const LossOptions& options,
                                                  const std::shared_ptr<train::Communicator>& ranks) {
  if (!options.aggregate || ranks->size() == 1) return nullptr;
  return std::make_shared<FeatureGather>(at_least_fp32(image), ranks);
}

PairLoss pair_loss(const PairFeatures& features, const LossOptions& options,
                   const std::shared_ptr<train::Communicator>& ranks) {
  const train::AutocastGuard no_autocast(features.image.device().type(), train::Precision::kFp32);
  const at::Tensor image = at_least_fp32(features.image), text = at_least_fp32(features.text);
  const at::Tensor all_images =
      features.images ? all_of(image, *features.images, options) : gather(image, options, ranks);
  const at::Tensor all_texts = gather(text, options, ranks);
  const bool is_local = options.local_loss && options.aggregate;
  const at::Tensor scaled = (is_local ? image : all_images) * at_least_fp32(features.scale);
  const at::Tensor image_logits = at::matmul(scaled, all_texts.t());
  const at::Tensor text_logits =
      is_local ? at::matmul(text * at_least_fp32(features.scale), all_images.t()) : image_logits.t();
  const int64_t own = is_local && options.gather_with_grad ? ranks->rank() * image.size(0) : 0;
  const at::Tensor targets = at::arange(own, own + image_logits.size(0), at::device(image.device()).dtype(at::kLong));

  PairLoss result;
  result.loss = (at::cross_entropy_loss(image_logits, targets) + at::cross_entropy_loss(text_logits, targets)) / 2;
  if (options.accuracy) {
    result.image_to_text = share_right(image_logits, targets);
    result.text_to_image = share_right(text_logits, targets);
  }
  if (features.teacher.defined()) {
    const at::Tensor teacher = at_least_fp32(features.teacher);
    const at::Tensor distilled =
        is_local ? distillation_loss(teacher, image) : distillation_loss(gather(teacher, options, ranks), all_images);
    result.loss = result.loss + options.kd_weight * distilled;
  }
  return result;
}

at::Tensor distillation_loss(const at::Tensor& teacher, const at::Tensor& student) {
  const at::Tensor resized =
      at::upsample_bilinear2d(student.unsqueeze(0).unsqueeze(0), teacher.sizes(), /*align_corners=*/false)
          .squeeze(0)
          .squeeze(0);
  return 1 - at::cosine_similarity(teacher, resized, /*dim=*/1).mean();
}

}  // namespace strobe::clip
