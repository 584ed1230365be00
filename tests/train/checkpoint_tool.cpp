// What the Python side of the tests drives: writes, prints and trains with checkpoints.
//   write FILE             a checkpoint with one value of each kind
//   dump FILE              one line for each leaf: path, type, value
//   adam FILE OUT          the updates that FILE describes; OUT gets the weights and the optimiser's state
//   course adam|adamw FOLDER  a run in fp64 with all that the loop does to gradients; FOLDER/data.pt gets its batches
//   train FOLDER [resume]  a small run that takes a while, with last.pt written after each update; says when it trains
#include <ATen/ops/arange.h>
#include <ATen/ops/ones_like.h>
#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <thread>
#include <utility>

#include "tests/train/tiny_task.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"

namespace strobe::train {
namespace {

void write(const std::string& file) {
  const at::Tensor base = at::arange(6, at::kFloat).reshape({2, 3});
  Dict state, content;
  state["weight"] = base;
  state["transposed"] = base.t();
  state["half"] = base.to(at::kHalf);
  state["bfloat16"] = base.to(at::kBFloat16);
  state["long"] = at::arange(3, at::kLong);
  state["parameter"] = base.clone().requires_grad_();
  content["model"] = std::move(state);
  content["values"] =
      List{Value(), true, -1, 70000, int64_t{1} << 40, 0.1, "naïve 译", Bytes{std::string("\0\xff", 2)}};
  content["tuple"] = Tuple{{1, Tuple{}, List{}, Dict{}}};
  save_checkpoint(file, content);
}

std::string escape(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    escaped += code > 0x20 && code < 0x7f && c != '\\' ? std::string(1, c) : fmt::format("\\x{:02x}", code);
  }
  return escaped;
}

void dump(const std::string& path, const Value& value) {
  const auto line = [&](const std::string& text) {
    std::cout << path << ' ' << value.type_name() << ' ' << text << '\n';
  };
  if (const auto* dict = std::get_if<Dict>(&value.data)) {
    line(std::to_string(dict->size()));
    for (const auto& [key, item] : *dict) {
      const auto* number = std::get_if<int64_t>(&key);
      dump(path + "/" + (number != nullptr ? std::to_string(*number) : std::get<std::string>(key)), item);
    }
  } else if (std::holds_alternative<List>(value.data) || std::holds_alternative<Tuple>(value.data)) {
    line(std::to_string(value.as_list().size()));
    for (std::size_t i = 0; i < value.as_list().size(); ++i) dump(path + "/" + std::to_string(i), value.as_list()[i]);
  } else if (const auto* tensor = std::get_if<at::Tensor>(&value.data)) {
    const double sum = tensor->to(at::kDouble).sum().item<double>();
    line(fmt::format("{} {} {} {:.17g}", c10::toString(tensor->scalar_type()), tensor->dim(), tensor->numel(), sum));
  } else if (const auto* number = std::get_if<double>(&value.data)) {
    line(fmt::format("{:.17g}", *number));
  } else if (const auto* text = std::get_if<std::string>(&value.data)) {
    line(escape(*text));
  } else if (const auto* bytes = std::get_if<Bytes>(&value.data)) {
    line(escape(bytes->data));
  } else if (const auto* integer = std::get_if<int64_t>(&value.data)) {
    line(std::to_string(*integer));
  } else if (const auto* flag = std::get_if<bool>(&value.data)) {
    line(*flag ? "True" : "False");
  } else {
    line("None");
  }
}

/// FILE: {"adamw", "beta1", "beta2", "eps", "weight_decay", "clip_norm", "lr": [per step], "weights": {name: tensor},
/// "gradients": [per step {name: tensor}], "optimizer": a state_dict or None}
void adam(const std::string& file, const std::string& out) {
  const Dict task = load_checkpoint(file);
  OptimizerOptions options;
  options.kind = task.at("adamw").as_bool() ? OptimizerOptions::Kind::kAdamW : OptimizerOptions::Kind::kAdam;
  options.beta1 = task.at("beta1").as_double();
  options.beta2 = task.at("beta2").as_double();
  options.eps = task.at("eps").as_double();
  options.weight_decay = task.at("weight_decay").as_double();
  const double clip_norm = task.at("clip_norm").as_double();
  NamedTensors weights;
  for (const auto& [name, tensor] : task.at("weights").as_dict()) {
    weights.emplace_back(std::get<std::string>(name), tensor.as_tensor().clone().requires_grad_());
  }
  Optimizer optimizer(weights, options);
  if (!task.at("optimizer").is_none()) optimizer.load_state_dict(task.at("optimizer").as_dict());
  for (std::size_t step = 0; step < task.at("lr").as_list().size(); ++step) {
    for (auto& [name, tensor] : weights) {
      tensor.mutable_grad() = task.at("gradients").as_list()[step].as_dict().at(name).as_tensor().clone();
    }
    const at::Tensor norm = gradient_norm(optimizer.gradients());
    scale_and_clip(optimizer.gradients(), norm, at::ones_like(norm), clip_norm);
    optimizer.step(task.at("lr").as_list()[step].as_double());
  }
  Dict result, updated;
  for (const auto& [name, tensor] : weights) updated[name] = tensor;
  result["weights"] = std::move(updated);
  result["optimizer"] = optimizer.state_dict();
  save_checkpoint(out, result);
}

/// data.pt: {"weights": {name: tensor} before the run, "batches": [{"inputs", "targets"}] in the order of their use}
int course(const std::string& kind, const std::string& folder) {
  TinyTask::Options task_options;
  task_options.batches = 12;
  task_options.dtype = at::kDouble;
  TinyTask task(task_options);
  Dict weights, data;
  for (const auto& [name, value] : module_state(task.model())) weights[name] = value.as_tensor().clone();
  List batches;
  task.on_forward = [&](int64_t, int64_t index) {
    const auto [inputs, targets] = task.batch(index);
    Dict batch;
    batch["inputs"] = inputs;
    batch["targets"] = targets;
    batches.emplace_back(std::move(batch));
  };
  TrainerOptions options = tiny_options(folder);
  options.epochs = 5;
  options.accumulation = 3;
  options.clip_norm = 0.05;
  options.optimizer.kind = kind == "adam" ? OptimizerOptions::Kind::kAdam : OptimizerOptions::Kind::kAdamW;
  options.optimizer.weight_decay = 0.1;
  options.schedule.kind = ScheduleOptions::Kind::kNoam;
  options.schedule.factor = 0.1;
  options.schedule.warmup = 6;
  const int status = train_quietly(task, options).exit_status;
  data["weights"] = std::move(weights);
  data["batches"] = std::move(batches);
  save_checkpoint(options.folder / "data.pt", data);
  return status;
}

int train_slowly(const std::string& folder, bool resume) {
  TinyTask::Options task_options;
  task_options.dropout = 0.3;
  task_options.batches = 20;
  TinyTask task(task_options);
  bool announced = false;
  task.on_forward = [&](int64_t, int64_t) {
    if (!std::exchange(announced, true)) std::cout << "training" << std::endl;
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  };
  TrainerOptions options = tiny_options(folder);
  options.epochs = 15;
  options.save_every = 1;
  options.keep_last = 3;
  options.validate_every_updates = 7;
  if (resume) options.resume = options.folder / "last.pt";
  return train_quietly(task, options).exit_status;
}

}  // namespace
}  // namespace strobe::train

int main(int argc, char** argv) {
  using namespace strobe::train;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 2 && arguments[0] == "write") return write(arguments[1]), 0;
    if (arguments.size() == 2 && arguments[0] == "dump") return dump("", load_checkpoint(arguments[1])), 0;
    if (arguments.size() == 3 && arguments[0] == "adam") return adam(arguments[1], arguments[2]), 0;
    if (arguments.size() == 3 && arguments[0] == "course") return course(arguments[1], arguments[2]);
    if (arguments.size() >= 2 && arguments[0] == "train") return train_slowly(arguments[1], arguments.size() == 3);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  std::cerr << "usage: write FILE | dump FILE | adam FILE OUT | course adam|adamw FOLDER | train FOLDER [resume]\n";
  return 2;
}
