#include "clip/training/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cosine_similarity.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include "clip/training/feature_gather.h"
#include "clip/training/gathered_loss.h"
#include "train/precision.h"

namespace strobe::clip {
namespace {

/// Logits up to 100 have steps of 0.06 in fp16.
at::Tensor at_least_fp32(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); }

at::Tensor all_of(const at::Tensor& own, FeatureGather& gather, const LossOptions& options) {
  return options.gather_with_grad ? gather.with_gradient(own) : gather.own_first(own);
}

at::Tensor share_right(const at::Tensor& logits, const at::Tensor& targets) {
  return logits.detach().argmax(-1).eq(targets).to(at::kFloat).mean();
}

/// Row i of both belongs to column first + i.
PairLoss cross_entropies(const at::Tensor& image_logits, const at::Tensor& text_logits, int64_t first, bool accuracy) {
  const at::Tensor targets =
      at::arange(first, first + image_logits.size(0), at::device(image_logits.device()).dtype(at::kLong));
  PairLoss result;
  result.loss = (at::cross_entropy_loss(image_logits, targets) + at::cross_entropy_loss(text_logits, targets)) / 2;
  if (accuracy) {
    result.image_to_text = share_right(image_logits, targets);
    result.text_to_image = share_right(text_logits, targets);
  }
  return result;
}

/// Of one batch alone.
PairLoss own_loss(const PairFeatures& own, const LossOptions& options) {
  const at::Tensor logits = at::matmul(own.image * own.scale, own.text.t());
  PairLoss result = cross_entropies(logits, logits.t(), 0, options.accuracy);
  if (own.teacher.defined()) {
    result.loss = result.loss + options.kd_weight * distillation_loss(own.teacher, own.image);
  }
  return result;
}

/// Of the own rows against the columns of all processes.
PairLoss local_loss(const PairFeatures& own, FeatureGather& texts, const LossOptions& options,
                    const std::shared_ptr<train::Communicator>& ranks) {
  const at::Tensor all_images = all_of(own.image, *own.images, options), all_texts = all_of(own.text, texts, options);
  PairLoss result = cross_entropies(at::matmul(own.image * own.scale, all_texts.t()),
                                    at::matmul(own.text * own.scale, all_images.t()),
                                    options.gather_with_grad ? ranks->rank() * own.image.size(0) : 0, options.accuracy);
  if (own.teacher.defined()) {
    result.loss = result.loss + options.kd_weight * distillation_loss(own.teacher, own.image);
  }
  return result;
}

PairLoss whole_loss(const PairFeatures& own, FeatureGather& texts, const LossOptions& options,
                    const std::shared_ptr<train::Communicator>& ranks) {
  const GatheredLoss whole = gathered_loss({own.image, own.text, own.scale, own.images->values(), texts.values()},
                                           options.gather_with_grad ? ranks->size() : 1, options.accuracy, ranks);
  PairLoss result = {whole.loss, whole.image_to_text, whole.text_to_image};
  if (own.teacher.defined()) {
    FeatureGather teachers(own.teacher, ranks);
    const at::Tensor distilled =
        distillation_loss(all_of(own.teacher, teachers, options), all_of(own.image, *own.images, options));
    result.loss = result.loss + options.kd_weight * distilled;
  }
  return result;
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
  PairFeatures own = features;
  for (at::Tensor* each : {&own.image, &own.text, &own.scale, &own.teacher}) {
    if (each->defined()) *each = at_least_fp32(*each);
  }
  if (!options.aggregate || ranks->size() == 1) return own_loss(own, options);
  if (!own.images) own.images = begin_image_gather(own.image, options, ranks);
  FeatureGather texts(own.text, ranks);
  return options.local_loss ? local_loss(own, texts, options, ranks) : whole_loss(own, texts, options, ranks);
}

at::Tensor distillation_loss(const at::Tensor& teacher, const at::Tensor& student) {
  const at::Tensor resized =
      at::upsample_bilinear2d(student.unsqueeze(0).unsqueeze(0), teacher.sizes(), /*align_corners=*/false)
          .squeeze(0)
          .squeeze(0);
  return 1 - at::cosine_similarity(teacher, resized, /*dim=*/1).mean();
}

}  // namespace strobe::clip
