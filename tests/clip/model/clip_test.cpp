// Properties of the Clip model that no comparison with the original shows; that comparison is parity_test.py.
#include "clip/model/clip.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "clip/model/text_batch.h"
#include "strobe/types.h"
#include "train/precision.h"

namespace strobe::clip {
namespace {

const std::vector<std::string> kTypes = {"dotscale", "flash_attn", "imp_flash_attn"};
constexpr int64_t kPatches = 16;  // of an image

VisionConfig small_vit() {
  return {.name = "small ViT",
          .embed_dim = 16,
          .image_resolution = 32,
          .layers = {2},
          .width = 64,
          .patch_size = 8,
          .head_width = 32};
}

VisionConfig small_resnet() {
  return {.name = "small ResNet",
          .embed_dim = 16,
          .image_resolution = 64,
          .layers = {1, 1, 1, 1},
          .width = 8,
          .patch_size = 0};
}

TextConfig small_text(double dropout = 0.1) {
  return {.name = "small BERT",
          .vocab_size = 60,
          .hidden_size = 64,
          .num_hidden_layers = 2,
          .num_attention_heads = 2,
          .intermediate_size = 128,
          .max_position_embeddings = 32,
          .hidden_dropout = dropout,
          .attention_dropout = dropout,
          .initializer_range = 0.2};
}

Clip seeded(const VisionConfig& vision, const TextConfig& text, const ClipOptions& options) {
  at::manual_seed(3);
  return Clip(vision, text, options);
}

at::Tensor images_for(const VisionConfig& config, int64_t batch) {
  return at::randn({batch, 3, config.image_resolution, config.image_resolution});
}

/// Texts of 2, 9 and 5 tokens, padded to `length`.
at::Tensor texts(int64_t length) {
  at::manual_seed(11);
  const at::Tensor ids = at::randint(1, 60, {3, 9}, at::kLong);
  const at::Tensor counts = at::tensor(at::IntArrayRef({2, 9, 5}));
  const at::Tensor real = at::arange(9, at::kLong).unsqueeze(0) < counts.unsqueeze(1);
  return at::cat({ids * real, at::zeros({3, length - 9}, at::kLong)}, 1);
}

at::Tensor loss_of(const ClipOutput& output) {
  const at::Tensor logits = output.scale * output.image_features.matmul(output.text_features.t());
  return logits.logsumexp(1).mean() + logits.logsumexp(0).mean() - 2 * logits.diagonal().mean();
}

class ClipTypeTest : public testing::TestWithParam<std::string> {
 protected:
  Clip model_ = seeded(small_vit(), small_text(), {.attn_type = GetParam()});
};

INSTANTIATE_TEST_SUITE_P(Types, ClipTypeTest, testing::ValuesIn(kTypes));

TEST_P(ClipTypeTest, PaddingCannotChangeATextFeature) {
  model_->eval();
  const at::NoGradGuard no_grad;
  const at::Tensor ids = texts(12), lengths = count_tokens(ids);
  const at::Tensor before = model_->encode_text(ids);
  const at::Tensor other = ids + (ids == 0) * 7;
  EXPECT_TRUE(at::equal(model_->encode_text(other, lengths), before)) << "with the lengths given";
  model_->named_parameters()["bert.embeddings.word_embeddings.weight"].select(0, 0).fill_(1e3);
  EXPECT_TRUE(at::equal(model_->encode_text(ids), before)) << "with another [PAD]";
}

TEST_P(ClipTypeTest, MorePaddingChangesATextFeatureByRoundingAtMost) {
  model_->eval();
  const at::NoGradGuard no_grad;
  const at::Tensor some = model_->encode_text(texts(9)), more = model_->encode_text(texts(30));
  EXPECT_LE((some - more).abs().max().item<double>(), 1e-5 * some.abs().max().item<double>());
}

TEST_P(ClipTypeTest, EvaluationRepeatsBitForBitAndTrainingDoesFromOneSeed) {
  const at::Tensor images = images_for(small_vit(), 3), ids = texts(12);
  const auto features = [&](uint64_t seed) {
    at::manual_seed(seed);
    const ClipOutput output = model_->forward(images, ids, 0.5);
    return at::cat({output.image_features, output.text_features}, 1);
  };
  model_->eval();
  EXPECT_TRUE(at::equal(features(1), features(2)));
  model_->train();
  EXPECT_TRUE(at::equal(features(1), features(1)));
  EXPECT_FALSE(at::equal(features(1), features(2)));
}

TEST_P(ClipTypeTest, CheckpointedGradientsAreThePlainOnesBitForBit) {
  Clip checkpointed = seeded(small_vit(), small_text(), {.attn_type = GetParam(), .grad_checkpointing = true});
  const at::Tensor images = images_for(small_vit(), 3), ids = texts(12);
  for (const auto precision : {train::Precision::kFp32, train::Precision::kBf16}) {
    for (Clip* model : {&model_, &checkpointed}) {
      (*model)->zero_grad();
      at::manual_seed(5);
      at::Tensor loss;
      {
        const train::AutocastGuard autocast(at::kCPU, precision);
        loss = loss_of((*model)->forward(images, ids, 0.5));
      }
      loss.backward();
    }
    const auto plain = model_->named_parameters();
    for (const auto& item : checkpointed->named_parameters()) {
      EXPECT_TRUE(at::equal(item.value().grad(), plain[item.key()].grad())) << item.key();
    }
  }
}

TEST(ClipTest, AttentionDropoutIsTheSameWithAllTypes) {
  TextConfig text = small_text(0.0);
  text.attention_dropout = 0.5;
  std::vector<at::Tensor> features;
  for (const std::string& type : kTypes) {
    Clip model = seeded(small_vit(), text, {.attn_type = type});
    model->eval();
    const at::Tensor without = model->encode_text(texts(12));
    model->train();
    at::manual_seed(5);
    features.push_back(model->encode_text(texts(12)));
    EXPECT_GT((features.back() - without).abs().max().item<double>(), 0.01);
    EXPECT_LE((features.back() - features.front()).abs().max().item<double>(), 1e-5);
  }
}

/// The layout of a GPU's batch whose lengths the host does not know.
TEST(TextBatchTest, PaddedAndPackedTextsHaveTheSameFeatures) {
  at::manual_seed(3);
  Bert bert(small_text(), ClipOptions{.attn_type = "imp_flash_attn"});
  bert->eval();
  const at::Tensor ids = texts(12);
  const at::Tensor padded = bert->forward(padded_texts(ids, {}, /*skip_padded_queries=*/true));
  const at::Tensor packed = bert->forward(packed_texts(ids, count_tokens(ids)));
  EXPECT_LE((padded - packed).abs().max().item<double>(), 1e-5);
}

TEST(TextBatchTest, ATextWithoutTokensCountsAsOnePad) {
  const at::Tensor ids = at::zeros({2, 4}, at::kLong);
  EXPECT_EQ(count_tokens(ids).sum().item<int64_t>(), 2);
  EXPECT_EQ(packed_texts(ids, count_tokens(ids)).ids.numel(), 2);
}

/// A patch that is left out gets no gradient.
at::Tensor patches_seen(Clip& model, double mask_ratio) {
  const at::Tensor images = images_for(small_vit(), 5).set_requires_grad(true);
  model->encode_image(images, mask_ratio).square().sum().backward();
  return images.grad().abs().reshape({5, 3, 4, 8, 4, 8}).sum({1, 3, 5}).flatten(1) > 0;  // [5, kPatches]
}

/// The loss and all gradients one after another, in training without dropout.
std::pair<double, at::Tensor> loss_and_gradients(Clip& model, const at::Tensor& images, const at::Tensor& ids,
                                                 train::Precision precision) {
  model->train();
  at::Tensor loss;
  {
    const train::AutocastGuard autocast(images.device().type(), precision);
    const ClipOutput output = model->forward(images, ids.to(images.device()), 0.0, count_tokens(ids));
    loss = loss_of({output.image_features.to(at::kFloat), output.text_features.to(at::kFloat), output.scale});
  }
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& gradient : torch::autograd::grad({loss}, model->parameters())) {
    gradients.push_back(gradient.cpu().contiguous().flatten().to(at::kDouble));
  }
  return {loss.item<double>(), at::cat(gradients)};
}

TEST(ClipOnGpuTest, GradientsUnderAutocastAreThoseOfSinglePrecisionWithinRounding) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  VisionConfig resnet = small_resnet();
  resnet.width = 16;  // channels in eights
  for (const VisionConfig& vision : {small_vit(), resnet}) {
    for (const bool checkpointed : {false, true}) {
      const ClipOptions options{.attn_type = "imp_flash_attn", .grad_checkpointing = checkpointed};
      Clip here = seeded(vision, small_text(0.0), options), there = seeded(vision, small_text(0.0), options);
      there->to(at::kCUDA);
      const at::Tensor images = at::cat({images_for(vision, 3), images_for(vision, 3)});
      const at::Tensor some = texts(12), ids = at::cat({some, (some.remainder(58) + 1) * (some != 0)});
      const auto [loss, gradients] = loss_and_gradients(here, images, ids, train::Precision::kFp32);
      const auto [found, theirs] = loss_and_gradients(there, images.to(at::kCUDA), ids, train::Precision::kFp16);
      // 2^-11 a rounding, a few dozen of them one after another, as noise; batch norm over few images amplifies it.
      EXPECT_NEAR(found, loss, 0.01 * std::abs(loss)) << vision.name;
      EXPECT_LE((theirs - gradients).norm().item<double>(), 0.05 * gradients.norm().item<double>()) << vision.name;
    }
  }
}

TEST(FlipTest, KeepsTheShareOfPatchesThatIsAskedFor) {
  Clip model = seeded(small_vit(), small_text(), {});
  const std::vector<std::pair<double, int64_t>> cases = {{0.0, 16}, {0.3, 11}, {0.5, 8}, {0.75, 4}, {0.99, 0}};
  for (const auto& [ratio, kept] : cases) {
    const at::Tensor counts = patches_seen(model, ratio).sum(1);
    EXPECT_TRUE(at::equal(counts, at::full({5}, kept, at::kLong))) << ratio;
  }
  const at::Tensor seen = patches_seen(model, 0.5);
  EXPECT_FALSE(at::equal(seen[0], seen[1])) << "each image draws its own";
  model->eval();
  EXPECT_EQ(patches_seen(model, 0.5).sum().item<int64_t>(), 5 * kPatches);
}

TEST(FreezingTest, AFrozenVisionTowerStaysAsItIsInTraining) {
  Clip model = seeded(small_resnet(), small_text(), {});
  model->freeze_vision();
  model->train();
  const at::Tensor before = model->named_buffers()["visual.bn1.running_mean"].clone();
  loss_of(model->forward(images_for(small_resnet(), 3), texts(12))).backward();
  EXPECT_TRUE(at::equal(model->named_buffers()["visual.bn1.running_mean"], before));
  EXPECT_EQ(model->named_buffers()["visual.bn1.num_batches_tracked"].item<int64_t>(), 0);
  for (const auto& item : model->named_parameters()) {
    EXPECT_EQ(item.value().grad().defined(), !item.key().starts_with("visual.")) << item.key();
  }
}

TEST(FreezingTest, AFrozenTextTowerDropsNothingOut) {
  Clip model = seeded(small_vit(), small_text(), {});
  model->freeze_text();
  model->train();
  EXPECT_TRUE(at::equal(model->encode_text(texts(12)), model->encode_text(texts(12))));
  EXPECT_FALSE(model->encode_text(texts(12)).requires_grad());
  EXPECT_TRUE(model->encode_image(images_for(small_vit(), 2)).requires_grad());
}

TEST(ClipTest, BeginsAsTheOriginal) {
  const Clip vit = seeded(small_vit(), small_text(), {}), resnet = seeded(small_resnet(), small_text(), {});
  const auto parameters = vit->named_parameters(), of_resnet = resnet->named_parameters();
  EXPECT_NEAR(parameters["logit_scale"].item<double>(), 2.6593, 1e-4);
  EXPECT_NEAR(parameters["bert.encoder.layer.0.output.dense.weight"].std().item<double>(), 0.2, 0.01);
  EXPECT_EQ(parameters["bert.encoder.layer.0.output.dense.bias"].abs().max().item<double>(), 0.0);
  EXPECT_EQ(parameters["visual.transformer.resblocks.0.attn.in_proj_bias"].abs().max().item<double>(), 0.0);
  EXPECT_NEAR(parameters["text_projection"].std().item<double>(), 1 / 8.0, 0.01);
  EXPECT_EQ(of_resnet["visual.layer1.0.bn3.weight"].abs().max().item<double>(), 0.0);
  EXPECT_EQ(of_resnet["visual.layer1.0.bn2.weight"].min().item<double>(), 1.0);
}

void expect_error(const std::function<void()>& call, const std::string& part) {
  try {
    call();
    ADD_FAILURE() << "no error about " << part;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(ClipTest, WhatDoesNotFitIsRefusedByName) {
  Clip model = seeded(small_vit(), small_text(), {.attn_type = "imp_flash_attn"});
  expect_error(
      [&] {
        model->encode_image(at::randn({1, 3, 48, 48}));
      },
      "expected [B, 3, 32, 32], found [1, 3, 48, 48]");
  expect_error([&] { model->encode_image(images_for(small_vit(), 1), 1.0); }, "mask_ratio");
  expect_error([&] { model->encode_text(at::zeros({2, 4})); }, "int64");
  expect_error(
      [&] {
        model->encode_text(at::randint(1, 9, {1, 33}, at::kLong));
      },
      "at most 32 tokens a text, found 33");
  expect_error([&] { model->encode_text(texts(9), at::full({3}, 10, at::kLong)); }, "expected 1 to 9, found 10 to 10");
  expect_error([&] { model->encode_text(texts(9), at::full({2}, 3, at::kLong)); }, "expected 3 of int64");
}

}  // namespace
}  // namespace strobe::clip
