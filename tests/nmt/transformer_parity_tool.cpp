// Writes what transformer_parity_test.py recomputes with Python's torch.nn.Transformer, as a checkpoint that torch.load
// reads:
//   transformer_parity_tool once ATTN_TYPE NORM TIES ACTIVATION FILE
//     configuration, weights, a batch, the logits of its real tokens, losses and all gradients
//   transformer_parity_tool train adam|adamw NORM TIES ACTIVATION FILE
//     configuration, weights, a batch for each update, the losses and the weights at the end, in float64
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

#include "nmt/vocabulary.h"
#include "tests/nmt/model_fixture.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace {

using namespace strobe;
using namespace strobe::nmt;

constexpr double kSmoothing = 0.1;
constexpr int kUpdates = 12;
constexpr int64_t kWarmup = 5;
constexpr double kFactor = 0.05;
constexpr double kWeightDecay = 0.02;

train::Dict tensors_of(const Batch& batch) {
  train::Dict dict;
  dict["source"] = batch.source;
  dict["source_lengths"] = batch.source_lengths;
  dict["target_in"] = batch.target_in;
  dict["target_out"] = batch.target_out;
  dict["target_lengths"] = batch.target_lengths;
  return dict;
}

train::Dict copies_of_parameters(const Transformer& model) {
  train::Dict dict;
  for (const auto& item : model->named_parameters()) dict[item.key()] = item.value().detach().clone();
  return dict;
}

train::Dict once(const ModelConfig& config) {
  Transformer model = seeded_model(config);
  const Batch batch = batch_of(random_pairs(7, config, 30, 40));
  const at::Tensor loss = model->loss(batch, kSmoothing);
  loss.backward();
  train::Dict content, gradients;
  for (const auto& item : model->named_parameters()) gradients[item.key()] = item.value().grad();
  content["model"] = train::module_state(*model);
  content["batch"] = tensors_of(batch);
  content["logits"] = model->forward(batch).detach();
  content["loss"] = loss.detach();
  content["plain_loss"] = model->loss(batch, 0.0).detach();
  content["gradients"] = gradients;
  return content;
}

train::Dict train(const ModelConfig& config, const std::string& optimizer_name) {
  Transformer model = seeded_model(config);
  model->to(at::kDouble);
  train::OptimizerOptions options;
  if (optimizer_name == "adamw") {
    options.kind = train::OptimizerOptions::Kind::kAdamW;
    options.weight_decay = kWeightDecay;
  }
  train::NamedTensors parameters;
  for (const auto& item : model->named_parameters()) parameters.emplace_back(item.key(), item.value());
  train::Optimizer optimizer(parameters, options);
  train::ScheduleOptions schedule;
  schedule.factor = kFactor;
  schedule.d_model = config.d_model;
  schedule.warmup = kWarmup;
  train::Dict content;
  train::List batches, losses;
  content["model"] = copies_of_parameters(model);
  for (int update = 1; update <= kUpdates; ++update) {
    const Batch batch = batch_of(random_pairs(7, config, 20, 100 + update));
    const at::Tensor loss = model->loss(batch, kSmoothing) / static_cast<double>(batch.target_tokens);
    optimizer.clear_gradients();
    loss.backward();
    optimizer.step(train::learning_rate(schedule, update));
    batches.emplace_back(tensors_of(batch));
    losses.emplace_back(loss.item<double>());
  }
  content["batches"] = batches;
  content["losses"] = losses;
  content["trained"] = copies_of_parameters(model);
  content["factor"] = kFactor;
  content["warmup"] = kWarmup;
  content["weight_decay"] = options.weight_decay;
  return content;
}

void write(const std::string& what, const std::string& kind, const Variant& variant,
           const std::filesystem::path& file) {
  const ModelConfig config = small_config(variant, /*dropout=*/0.0);
  train::Dict content = what == "once" ? once(config) : train(config, kind);
  content["config"] = to_dict(config);
  content["label_smoothing"] = kSmoothing;
  train::save_checkpoint(file, content);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  const std::string what = argv[1], kind = argv[2];
  try {
    // Of the types only dotscale computes in float64.
    write(what, kind, {what == "once" ? kind : "dotscale", argv[3], argv[4], argv[5]}, argv[6]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
