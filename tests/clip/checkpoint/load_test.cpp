#include "clip/checkpoint/load.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clip/checkpoint/hugging_face.h"
#include "clip/checkpoint/optimizer_state.h"
#include "clip/checkpoint/parameter_order.h"
#include "clip/checkpoint/state.h"
#include "clip/checkpoint/towers.h"
#include "clip/model/clip.h"
#include "tests/clip/checkpoint/nested_module.h"
#include "tests/message_of.h"
#include "train/checkpoint.h"

namespace strobe::clip {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using train::CheckpointError;
using train::Dict;

Dict sample() {
  Dict state;
  state["logit_scale"] = at::ones({});
  state["visual.ln_pre.weight"] = at::arange(4, at::kFloat);
  state["visual.bn1.num_batches_tracked"] = at::ones({}, at::kLong);
  return state;
}

TEST(LoadClipWeights, CopiesAnyFloatDtypeIntoFp32) {
  const auto module = nested_module(sample());
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16, at::kDouble, at::kFloat}) {
    Dict state = sample();
    state["visual.ln_pre.weight"] = at::arange(4, at::kFloat).add(dtype == at::kHalf ? 1 : 2).to(dtype);
    load_clip_weights(*module, state);
    const at::Tensor found = train::module_state(*module).at("visual.ln_pre.weight").as_tensor();
    EXPECT_EQ(found.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(found, state.at("visual.ln_pre.weight").as_tensor().to(at::kFloat)));
  }
}

TEST(LoadClipWeights, ListsWhatDoesNotFitAndChangesNothing) {
  const auto module = nested_module(sample());
  Dict state;
  state["logit_scale"] = at::ones({2});
  state["visual.other"] = at::ones({3});
  EXPECT_THAT(message_of<CheckpointError>([&] { load_clip_weights(*module, state); }),
              AllOf(HasSubstr("of another shape: logit_scale (expected [], found [2])"),
                    HasSubstr("missing: visual.ln_pre.weight"), HasSubstr("unexpected: visual.other")));
  EXPECT_EQ(train::module_state(*module).at("logit_scale").as_tensor().item<float>(), 0);
  EXPECT_THAT(message_of<CheckpointError>([&] { load_clip_weights(*module, state, {.strict = false}); }),
              HasSubstr("logit_scale"));
}

TEST(LoadClipWeights, ReportsWhatALooseLoadPassedOver) {
  const auto module = nested_module(sample());
  Dict state;
  state["logit_scale"] = at::ones({});
  state["visual.other"] = at::ones({3});
  const LoadReport report = load_clip_weights(*module, state, {.strict = false});
  EXPECT_THAT(report.missing, ElementsAre("visual.ln_pre.weight"));
  EXPECT_THAT(report.unexpected, ElementsAre("visual.other"));
  EXPECT_EQ(train::module_state(*module).at("logit_scale").as_tensor().item<float>(), 1);
}

TEST(ResizePositionEmbedding, KeepsTheClassTokenAndTheCorners) {
  const at::Tensor embedding = at::arange(5 * 3, at::kFloat).reshape({5, 3});
  const at::Tensor resized = resize_position_embedding(embedding, 4);
  ASSERT_EQ(resized.sizes(), (std::vector<int64_t>{17, 3}));
  EXPECT_TRUE(at::equal(resized[0], embedding[0]));
  EXPECT_TRUE(resized[1].allclose(embedding[1]) && resized[16].allclose(embedding[4]));
  EXPECT_NE(message_of<CheckpointError>([&] { resize_position_embedding(at::zeros({4, 3}), 2); }), "");
  EXPECT_NE(message_of<CheckpointError>([&] { resize_position_embedding(embedding, 0); }), "");
}

TEST(NormaliseState, RefusesWhatIsNoTensorAndTwoOfOneName) {
  Dict state;
  state["module.logit_scale"] = at::ones({});
  EXPECT_TRUE(normalise_state(state).contains("logit_scale"));
  state["logit_scale"] = at::ones({});
  EXPECT_THAT(message_of<CheckpointError>([&] { normalise_state(state); }), HasSubstr("two tensors logit_scale"));
  Dict odd;
  odd["module.name"] = "text";
  EXPECT_THAT(message_of<CheckpointError>([&] { normalise_state(odd); }),
              HasSubstr("name: expected a Tensor, found str"));
}

TEST(HuggingFace, NamesWhatHasNoPlace) {
  Dict weights;
  weights["vision_model.encoder.layers.0.odd.weight"] = at::ones({1});
  EXPECT_THAT(message_of<CheckpointError>([&] { from_hugging_face(weights); }),
              HasSubstr("layers.0.odd.weight has no place"));
  Dict partial;
  partial["vision_model.encoder.layers.0.self_attn.q_proj.bias"] = at::ones({1});
  EXPECT_THAT(message_of<CheckpointError>([&] { from_hugging_face(partial); }),
              HasSubstr("resblocks.0.attn.in_proj_bias"));
  Dict resnet;
  resnet["visual.layer1.0.conv1.weight"] = at::ones({1});
  EXPECT_THAT(message_of<CheckpointError>([&] { to_hugging_face(resnet); }), HasSubstr("no ResNet"));
}

class FileParameters : public ::testing::TestWithParam<bool> {};

TEST_P(FileParameters, AreTheModelsInItsOrderAndTellItsSizes) {
  VisionConfig vision{.name = "", .embed_dim = 8, .image_resolution = 64, .layers = {2}, .width = 64};
  if (!GetParam())
    vision = {.name = "", .embed_dim = 8, .image_resolution = 64, .layers = {1, 2, 1, 1}, .width = 4, .patch_size = 0};
  const TextConfig text{
      .name = "", .vocab_size = 20, .hidden_size = 64, .num_hidden_layers = 2, .num_attention_heads = 1};
  const Clip model(vision, text, ClipOptions{});
  std::vector<std::string> expected, found;
  for (const auto& item : model->named_parameters()) expected.push_back(item.key());
  const Dict state = train::module_state(*model);
  for (const FileParameter& names : file_parameters(state, AttentionForm::kPlain)) found.push_back(names.at(0));
  EXPECT_EQ(found, expected);

  check_towers(state, vision, text);
  EXPECT_EQ(infer_towers(state).vision.image_resolution, 64);
  EXPECT_THAT(message_of<CheckpointError>([&] { check_towers(state, vision_config("ViT-B-16"), text); }),
              HasSubstr("expected weights of ViT-B-16 with a BERT of width 64, 2 layers, 20 words, found those of"));
}

INSTANTIATE_TEST_SUITE_P(Towers, FileParameters, ::testing::Bool());

Dict optimizer(const std::vector<std::string>& names, double lr) {
  Dict slots, group, saved;
  train::List numbers, texts;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto number = static_cast<int64_t>(i);
    Dict slot;
    slot["step"] = at::ones({});
    slot["exp_avg"] = at::ones({number + 1});
    slot["exp_avg_sq"] = at::ones({number + 1});
    slots[number] = std::move(slot);
    numbers.emplace_back(number);
    texts.emplace_back(names[i]);
  }
  group["lr"] = lr;
  group["weight_decay"] = 0.1;
  group["params"] = std::move(numbers);
  group["param_names"] = std::move(texts);
  saved["state"] = std::move(slots);
  saved["param_groups"] = train::List{std::move(group)};
  return saved;
}

TEST(MatchOptimizer, GoesByNameAndListsTheMissing) {
  const Dict saved = optimizer({"a", "b", "c"}, 0.25), own = optimizer({"c", "a"}, 0.5);
  const Dict matched = match_optimizer(saved, own);
  const Dict& slots = matched.at("state").as_dict();
  ASSERT_EQ(slots.size(), 2u);
  EXPECT_EQ(slots.at(int64_t{0}).as_dict().at("exp_avg").as_tensor().size(0), 3);
  EXPECT_EQ(slots.at(int64_t{1}).as_dict().at("exp_avg").as_tensor().size(0), 1);
  EXPECT_EQ(matched.at("param_groups").as_list()[0].as_dict().at("lr").as_double(), 0.25);
  EXPECT_THAT(message_of<CheckpointError>([&] { match_optimizer(own, saved); }), HasSubstr("has none of b"));
}

}  // namespace
}  // namespace strobe::clip
