#include "train/optimizer.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <unordered_set>

namespace strobe::train {
namespace {

using Kind = OptimizerOptions::Kind;

/// What torch.nn.utils.clip_grad_norm_ adds to the norm before it divides by it.
constexpr double kClipEpsilon = 1e-6;

void validate(const OptimizerOptions& options) {
  const auto require = [](bool holds, const char* expected, double found) {
    if (!holds) throw Error(std::string("optimizer: expected ") + expected + ", found " + std::to_string(found));
  };
  require(options.beta1 >= 0 && options.beta1 < 1, "0 <= beta1 < 1", options.beta1);
  require(options.beta2 >= 0 && options.beta2 < 1, "0 <= beta2 < 1", options.beta2);
  require(options.eps >= 0, "eps >= 0", options.eps);
  require(options.weight_decay >= 0, "weight_decay >= 0", options.weight_decay);
}

/// Tied weights appear under two names and must be updated once: `seen` holds those that have been.
NamedTensors trainable(const NamedTensors& parameters, std::unordered_set<const void*>& seen) {
  NamedTensors kept;
  for (const auto& [name, parameter] : parameters) {
    if (parameter.requires_grad() && seen.insert(parameter.unsafeGetTensorImpl()).second) {
      kept.emplace_back(name, parameter);
    }
  }
  return kept;
}

void restore(at::Tensor& target, const Dict& state, const char* key, const std::string& parameter) {
  const Value& value = state.at(key);
  const at::Tensor saved = target.dim() == 0 && !std::holds_alternative<at::Tensor>(value.data)
                               ? at::scalar_tensor(value.as_double())
                               : value.as_tensor();
  if (saved.sizes() != target.sizes()) {
    throw CheckpointError("optimizer state: " + std::string(key) + " of " + parameter +
                          ": expected another shape than the checkpoint's");
  }
  target.copy_(saved);
}

}  // namespace

std::vector<ParameterGroup> decayed_matrices(const NamedTensors& parameters, double weight_decay) {
  ParameterGroup decayed{.parameters = {}, .weight_decay = weight_decay};
  ParameterGroup plain;
  for (const auto& item : parameters) {
    const bool is_plain = weight_decay > 0 && item.second.dim() < 2;
    (is_plain ? plain : decayed).parameters.push_back(item);
  }
  return {std::move(decayed), std::move(plain)};
}

Optimizer::Optimizer(const std::vector<ParameterGroup>& groups, const OptimizerOptions& options) : options_(options) {
  validate(options);
  std::unordered_set<const void*> seen;
  for (const ParameterGroup& group : groups) add_group(trainable(group.parameters, seen), group.weight_decay);
}

void Optimizer::add_group(const NamedTensors& parameters, double weight_decay) {
  if (parameters.empty()) return;
  const std::size_t first_bucket = buckets_.size();
  groups_.push_back({weight_decay, slots_.size(), slots_.size() + parameters.size()});
  for (const auto& [name, parameter] : parameters) {
    const auto scalar = at::device(parameter.device()).dtype(at::kFloat);
    const auto holds_kind = [&, &parameter = parameter](const Bucket& bucket) {
      const at::Tensor& other = slots_[bucket.slots.front()].parameter;
      return other.device() == parameter.device() && other.scalar_type() == parameter.scalar_type();
    };
    auto bucket =
        std::find_if(buckets_.begin() + static_cast<std::ptrdiff_t>(first_bucket), buckets_.end(), holds_kind);
    if (bucket == buckets_.end()) {
      buckets_.push_back({weight_decay, parameter.is_cpu() ? at::Tensor() : at::empty({}, scalar), {}});
      bucket = std::prev(buckets_.end());
    }
    bucket->slots.push_back(slots_.size());
    const at::Tensor values = parameter.detach();
    slots_.push_back({name, parameter, at::zeros({}, scalar), at::zeros_like(values), at::zeros_like(values)});
  }
}

void Optimizer::step(double lr, const at::Tensor& found_inf) {
  const at::NoGradGuard no_grad;
  lr_ = lr;
  for (const Bucket& bucket : buckets_) update(bucket, lr, found_inf);
}

void Optimizer::update(const Bucket& bucket, double lr, const at::Tensor& found_inf) {
  std::vector<at::Tensor> parameters, gradients, exp_avgs, exp_avg_sqs, steps;
  for (const std::size_t index : bucket.slots) {
    const Slot& slot = slots_[index];
    if (!slot.parameter.grad().defined()) continue;
    parameters.push_back(slot.parameter);
    gradients.push_back(slot.parameter.grad());
    exp_avgs.push_back(slot.exp_avg);
    exp_avg_sqs.push_back(slot.exp_avg_sq);
    steps.push_back(slot.step);
  }
  if (parameters.empty()) return;
  std::optional<at::Tensor> skip;
  if (found_inf.defined()) skip = found_inf.to(parameters.front().device(), /*non_blocking=*/true);

  at::_foreach_add_(steps, 1);
  const std::vector<at::Tensor> no_maxima;  // amsgrad's
  const auto run = [&](const auto& fused, const auto& rate) {
    fused(parameters, gradients, exp_avgs, exp_avg_sqs, no_maxima, steps, rate, options_.beta1, options_.beta2,
          bucket.weight_decay, options_.eps, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/std::nullopt, skip);
  };
  const auto adam = [](const auto&... arguments) { at::_fused_adam_(arguments...); };
  const auto adamw = [](const auto&... arguments) { at::_fused_adamw_(arguments...); };
  const auto dispatch = [&](const auto& rate) { options_.kind == Kind::kAdam ? run(adam, rate) : run(adamw, rate); };
  if (bucket.lr.defined()) {
    bucket.lr.fill_(lr);
    dispatch(bucket.lr);
  } else {
    dispatch(lr);
  }
  // The kernels leave everything as it was where found_inf is 1; the counts follow here.
  if (skip) at::_foreach_sub_(steps, std::vector<at::Tensor>(steps.size(), *skip));
}

void Optimizer::clear_gradients() {
  for (const Slot& slot : slots_) slot.parameter.mutable_grad().reset();
}

NamedTensors Optimizer::parameters() const {
  NamedTensors parameters;
  for (const Slot& slot : slots_) parameters.emplace_back(slot.name, slot.parameter);
  return parameters;
}

std::vector<at::Tensor> Optimizer::gradients() const {
  std::vector<at::Tensor> defined;
  for (const Slot& slot : slots_) {
    if (slot.parameter.grad().defined()) defined.push_back(slot.parameter.grad());
  }
  return defined;
}

Dict Optimizer::group_state(std::size_t group) const {
  List indices, names;
  for (std::size_t i = groups_[group].begin; i < groups_[group].end; ++i) {
    indices.emplace_back(static_cast<int64_t>(i));
    names.emplace_back(slots_[i].name);
  }
  Dict state;
  state["lr"] = lr_;
  state["betas"] = Tuple{{options_.beta1, options_.beta2}};
  state["eps"] = options_.eps;
  state["weight_decay"] = groups_[group].weight_decay;
  state["amsgrad"] = false;
  state["maximize"] = false;
  state["foreach"] = Value();
  state["capturable"] = false;
  state["differentiable"] = false;
  state["fused"] = true;
  state["decoupled_weight_decay"] = options_.kind == Kind::kAdamW;
  state["params"] = std::move(indices);
  state["param_names"] = std::move(names);
  return state;
}

Dict Optimizer::state_dict() const {
  Dict state, result;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    Dict slot;
    slot["step"] = slots_[i].step;
    slot["exp_avg"] = slots_[i].exp_avg;
    slot["exp_avg_sq"] = slots_[i].exp_avg_sq;
    state[static_cast<int64_t>(i)] = std::move(slot);
  }
  List groups;
  for (std::size_t group = 0; group < groups_.size(); ++group) groups.emplace_back(group_state(group));
  result["state"] = std::move(state);
  result["param_groups"] = std::move(groups);
  return result;
}

void Optimizer::load_state_dict(const Dict& saved) {
  const at::NoGradGuard no_grad;
  const List& groups = saved.at("param_groups").as_list();
  if (groups.size() != groups_.size()) {
    throw CheckpointError("optimizer state: expected " + std::to_string(groups_.size()) + " parameter groups, found " +
                          std::to_string(groups.size()));
  }
  const Dict& state = saved.at("state").as_dict();
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const Dict& group = groups[g].as_dict();
    const List& indices = group.at("params").as_list();
    if (indices.size() != groups_[g].end - groups_[g].begin) {
      throw CheckpointError("optimizer state: group " + std::to_string(g) + ": expected " +
                            std::to_string(groups_[g].end - groups_[g].begin) + " parameters, found " +
                            std::to_string(indices.size()));
    }
    for (std::size_t i = 0; i < indices.size(); ++i) {
      Slot& slot = slots_[groups_[g].begin + i];
      const Value* entry = state.find(indices[i].as_int());
      if (entry == nullptr) continue;  // Python keeps no state of a parameter that never had a gradient
      restore(slot.step, entry->as_dict(), "step", slot.name);
      restore(slot.exp_avg, entry->as_dict(), "exp_avg", slot.name);
      restore(slot.exp_avg_sq, entry->as_dict(), "exp_avg_sq", slot.name);
    }
    lr_ = group.at("lr").as_double();
  }
}

at::Tensor gradient_norm(const std::vector<at::Tensor>& gradients) {
  const at::NoGradGuard no_grad;
  if (gradients.empty()) return at::zeros({});
  std::vector<at::Tensor> norms = at::_foreach_norm(gradients, 2);
  for (at::Tensor& norm : norms) norm = norm.to(norms.front().options(), /*non_blocking=*/true);
  return at::linalg_vector_norm(at::stack(norms), 2);
}

void scale_and_clip(const std::vector<at::Tensor>& gradients, const at::Tensor& norm, const at::Tensor& scale,
                    double max_norm) {
  const at::NoGradGuard no_grad;
  if (gradients.empty()) return;
  at::Tensor coefficient = scale;
  if (max_norm > 0) {
    const at::Tensor ratio = norm.mul(scale).add(kClipEpsilon).reciprocal().mul(max_norm);
    coefficient = scale.mul(ratio.clamp_max(1.0));
  }
  at::_foreach_mul_(gradients, coefficient.to(gradients.front().device(), /*non_blocking=*/true));
}

}  // namespace strobe::train
