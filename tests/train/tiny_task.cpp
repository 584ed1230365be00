#include "tests/train/tiny_task.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>

#include <fstream>
#include <numeric>
#include <random>
#include <sstream>

namespace strobe::train {
namespace {

constexpr int64_t kInputs = 6, kHidden = 8, kOutputs = 3;

at::Tensor random(at::IntArrayRef sizes, uint64_t seed, at::TensorOptions kind) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::dtype(at::kDouble)).to(kind);
}

at::TensorOptions kind(const TinyTask::Options& options) { return at::device(options.device).dtype(options.dtype); }

struct TinyModule : torch::nn::Module {
  explicit TinyModule(at::TensorOptions kind) {
    const auto add = [&](const char* name, at::IntArrayRef sizes, uint64_t seed) {
      return register_parameter(name, random(sizes, seed, kind).mul_(0.3));
    };
    hidden_weight = add("hidden_weight", {kHidden, kInputs}, 11);
    hidden_bias = add("hidden_bias", {kHidden}, 12);
    output_weight = add("output_weight", {kOutputs, kHidden}, 13);
    output_bias = add("output_bias", {kOutputs}, 14);
    register_buffer("offset", random({kOutputs}, 15, kind));
  }
  at::Tensor hidden_weight, hidden_bias, output_weight, output_bias;
};

/// Batch `id` has 3 to 5 items.
TinyTask::Example example(int64_t id, at::TensorOptions kind) {
  const int64_t items = 3 + id % 3;
  const at::Tensor inputs = random({items, kInputs}, 100 + static_cast<uint64_t>(id), kind);
  return {inputs, inputs.narrow(1, 0, kOutputs).sin()};
}

}  // namespace

TinyTask::TinyTask() : TinyTask(Options{}) {}
TinyTask::TinyTask(const Options& options) : options_(options), model_(std::make_shared<TinyModule>(kind(options))) {
  at::set_num_threads(1);  // threads would only wait for each other
}

int64_t TinyTask::begin_epoch(int64_t epoch) {
  epoch_ = epoch;
  order_.resize(static_cast<std::size_t>(options_.batches));
  std::iota(order_.begin(), order_.end(), 0);
  std::shuffle(order_.begin(), order_.end(), std::mt19937(static_cast<uint32_t>(epoch)));
  return options_.batches / options_.merge;
}

at::Tensor TinyTask::run(const at::Tensor& inputs) const {
  const auto& module = static_cast<const TinyModule&>(*model_);
  const at::Tensor hidden = at::linear(inputs, module.hidden_weight, module.hidden_bias).tanh();
  const at::Tensor dropped = at::dropout(hidden, options_.dropout, module.is_training());
  return at::linear(dropped, module.output_weight, module.output_bias);
}

TinyTask::Example TinyTask::batch(int64_t index) const {
  std::vector<at::Tensor> inputs, targets;
  for (int64_t i = index * options_.merge; i < (index + 1) * options_.merge; ++i) {
    const Example part = example(order_.at(static_cast<std::size_t>(i)), kind(options_));
    inputs.push_back(part.inputs);
    targets.push_back(part.targets);
  }
  return {at::cat(inputs), at::cat(targets)};
}

BatchLoss TinyTask::forward(int64_t index) {
  if (on_forward) on_forward(epoch_, index);
  was_training = model_->is_training();
  const auto [inputs, targets] = batch(index);
  BatchLoss loss;
  loss.loss_sum = (run(inputs) - targets).square().sum();
  if (loss_factor) loss.loss_sum = loss.loss_sum * loss_factor(epoch_, index);
  loss.count = targets.size(0);
  loss.source_tokens = 2 * loss.count;
  loss.slots = 4 * loss.count;
  loss.padding = loss.count;
  return loss;
}

Validation TinyTask::validate() {
  validated_training = model_->is_training();
  const Example all = example(1000, kind(options_));
  Validation found;
  found.loss = (run(all.inputs) - all.targets).square().mean().item<double>();
  found.score = validations_ < scores.size() ? scores[validations_] : -found.loss;
  ++validations_;
  return found;
}

Value TinyTask::describe() const {
  Dict config, description;
  config["hidden"] = kHidden;
  description["config"] = std::move(config);
  description["vocabulary"] = Bytes{std::string("\0\xff words", 8)};
  return description;
}

std::string read_text(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

TrainerOptions tiny_options(const std::filesystem::path& folder) {
  TrainerOptions options;
  options.folder = folder;
  options.epochs = 2;
  options.patience = 0;
  options.optimizer.kind = OptimizerOptions::Kind::kAdamW;
  options.optimizer.weight_decay = 0.01;
  options.schedule.kind = ScheduleOptions::Kind::kConstant;
  options.schedule.lr = 1e-2;
  options.schedule.warmup = 0;
  return options;
}

TrainResult train_quietly(Task& task, const TrainerOptions& options) {
  const auto mode = options.resume.empty() ? Logger::Mode::kTruncate : Logger::Mode::kAppend;
  Logger logger(options.folder / "train.log", mode, /*console=*/false);
  return train(task, options, logger);
}

at::Tensor flat_weights(const torch::nn::Module& module) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& parameter : module.parameters())
    parts.push_back(parameter.detach().reshape({-1}).to(at::kDouble));
  return at::cat(parts);
}

}  // namespace strobe::train
