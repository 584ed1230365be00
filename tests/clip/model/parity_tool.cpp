// Answers parity_test.py, which holds Clip against the programs that define it:
//   parity_tool REQUEST ANSWER, both checkpoints
// A request has "vision" and "text", each a configuration's name and what differs from it, and
//   {"what": "describe"} -> {"parameters", "buffers"}: lists of [name, shape]
//   {"what": "run", "state", "images", "ids", "runs"} -> {"results"}: of each run {"attn_type", "dtype": "float32",
//   "float64" or "bfloat16" (autocast), "train", "mask_ratio", "seed", "grad_checkpointing", "gradients"} the
//   {"image_features", "text_features", "loss", "gradients", "buffers"}, features not normalised
#include <ATen/Context.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/matmul.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <cstdio>
#include <exception>
#include <string>

#include "clip/model/clip.h"
#include "train/checkpoint.h"
#include "train/precision.h"

namespace {

using namespace strobe;
using namespace strobe::clip;
using train::Dict;
using train::List;

void set_if_given(const Dict& from, const char* key, int64_t& value) {
  if (const train::Value* found = from.find(key)) value = found->as_int();
}

VisionConfig vision_of(const Dict& request) {
  const Dict& given = request.at("vision").as_dict();
  VisionConfig config = vision_config(given.at("name").as_string());
  set_if_given(given, "embed_dim", config.embed_dim);
  set_if_given(given, "width", config.width);
  if (const train::Value* layers = given.find("layers")) {
    config.layers.clear();
    for (const train::Value& count : layers->as_list()) config.layers.push_back(count.as_int());
  }
  return config;
}

TextConfig text_of(const Dict& request) {
  const Dict& given = request.at("text").as_dict();
  TextConfig config = text_config(given.at("name").as_string());
  set_if_given(given, "vocab_size", config.vocab_size);
  set_if_given(given, "hidden_size", config.hidden_size);
  set_if_given(given, "num_hidden_layers", config.num_hidden_layers);
  set_if_given(given, "num_attention_heads", config.num_attention_heads);
  set_if_given(given, "intermediate_size", config.intermediate_size);
  config.hidden_dropout = config.attention_dropout = 0.0;
  return config;
}

template <typename Items>
List shapes_of(const Items& items) {
  List shapes;
  for (const auto& item : items) {
    List shape;
    for (const int64_t size : item.value().sizes()) shape.emplace_back(size);
    shapes.emplace_back(List{item.key(), shape});
  }
  return shapes;
}

Dict describe(const Dict& request) {
  const Clip model(vision_of(request), text_of(request), ClipOptions());
  Dict answer;
  answer["parameters"] = shapes_of(model->named_parameters());
  answer["buffers"] = shapes_of(model->named_buffers());
  return answer;
}

at::Tensor loss_of(const ClipOutput& output) {
  const at::Tensor logits = output.scale * at::matmul(output.image_features, output.text_features.t());
  const at::Tensor labels = at::arange(logits.size(0), at::kLong);
  return (at::cross_entropy_loss(logits, labels) + at::cross_entropy_loss(logits.t(), labels)) / 2;
}

Dict run_model(const Dict& request, const Dict& run) {
  ClipOptions options{run.at("attn_type").as_string(), run.at("grad_checkpointing").as_bool()};
  Clip model(vision_of(request), text_of(request), options);
  train::load_module_state(*model, request.at("state").as_dict());
  const std::string dtype = run.at("dtype").as_string();
  if (dtype == "float64") model->to(at::kDouble);
  model->train(run.at("train").as_bool());
  const at::Tensor& images = request.at("images").as_tensor();
  const at::Tensor& ids = request.at("ids").as_tensor();
  const double mask_ratio = run.at("mask_ratio").as_double();
  const auto seed = static_cast<uint64_t>(run.at("seed").as_int());

  Dict result;
  if (run.at("gradients").as_bool()) {
    at::manual_seed(seed);
    at::Tensor loss;
    {
      const train::AutocastGuard autocast(at::kCPU,
                                          dtype == "bfloat16" ? train::Precision::kBf16 : train::Precision::kFp32);
      loss = loss_of(model->forward(images, ids, mask_ratio));
    }
    loss.backward();
    Dict gradients, buffers;
    for (const auto& item : model->named_parameters()) gradients[item.key()] = item.value().grad();
    for (const auto& item : model->named_buffers()) buffers[item.key()] = item.value().clone();
    result["loss"] = loss.detach();
    result["gradients"] = gradients;
    result["buffers"] = buffers;
  }
  const at::NoGradGuard no_grad;
  const train::AutocastGuard autocast(at::kCPU,
                                      dtype == "bfloat16" ? train::Precision::kBf16 : train::Precision::kFp32);
  at::manual_seed(seed);
  result["image_features"] = model->encode_image(images, mask_ratio);
  result["text_features"] = model->encode_text(ids);
  return result;
}

Dict answer(const Dict& request) {
  if (request.at("what").as_string() == "describe") return describe(request);
  List results;
  for (const train::Value& run : request.at("runs").as_list()) results.emplace_back(run_model(request, run.as_dict()));
  Dict answer;
  answer["results"] = results;
  return answer;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    train::save_checkpoint(argv[2], answer(train::load_checkpoint(argv[1])));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
