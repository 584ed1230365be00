#include "nn/checkpointing.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Generator.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <mutex>
#include <utility>

namespace strobe::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The states of the CPU's generator and of a device's.
class GeneratorStates {
 public:
  static GeneratorStates current(at::Device device) {
    GeneratorStates states;
    states.add(at::kCPU);
    if (!device.is_cpu()) states.add(device);
    return states;
  }

  void restore() const {
    for (auto [generator, state] : states_) {
      const std::lock_guard<std::mutex> lock(generator.mutex());
      generator.set_state(state);
    }
  }

 private:
  void add(at::Device device) {
    at::Generator generator = at::globalContext().defaultGenerator(device);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    states_.emplace_back(generator, generator.get_state());
  }

  std::vector<std::pair<at::Generator, at::Tensor>> states_;
};

/// What a region of autocast has set for one type of device.
struct Autocast {
  at::DeviceType device;
  bool enabled;
  at::ScalarType dtype;
  bool cache;

  static Autocast current(at::DeviceType device) {
    return {device, at::autocast::is_autocast_enabled(device), at::autocast::get_autocast_dtype(device),
            at::autocast::is_autocast_cache_enabled()};
  }

  void restore() const {
    at::autocast::set_autocast_enabled(device, enabled);
    at::autocast::set_autocast_dtype(device, dtype);
    at::autocast::set_autocast_cache_enabled(cache);
  }

  /// A weight's cast that is cached without a graph would be taken by whoever needs its gradient later.
  Autocast without_cache() const { return {device, enabled, dtype, false}; }
};

/// Enters one state and goes back to what was current before.
template <typename State>
class Entered {
 public:
  template <typename Device>
  Entered(const State& state, Device device) : before_(State::current(device)) {
    state.restore();
  }
  ~Entered() { before_.restore(); }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  State before_;
};

/// Everything but the tensors that the block's second run needs.
struct Recomputation : torch::CustomClassHolder {
  Recomputation(Block the_block, at::Device device)
      : block(std::move(the_block)),
        generators(GeneratorStates::current(device)),
        autocast(Autocast::current(device.type()).without_cache()) {}

  Block block;
  GeneratorStates generators;
  Autocast autocast;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, at::TensorList parameters,
                            const Block& block) {
    variable_list saved = {x};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    context->save_for_backward(std::move(saved));
    auto recomputation = c10::make_intrusive<Recomputation>(block, x.device());
    const Entered<Autocast> no_cache(recomputation->autocast, x.device().type());
    context->saved_data["recomputation"] = c10::IValue::make_capsule(std::move(recomputation));
    return block(x);  // autograd is off in here
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list inputs = context->get_saved_variables();
    const bool needs_dx = context->needs_input_grad(0);
    inputs[0] = inputs[0].detach().set_requires_grad(needs_dx);
    const at::Tensor out = run_again(context, inputs[0]);
    if (!needs_dx) inputs.erase(inputs.begin());
    variable_list results = torch::autograd::grad({out}, inputs, {gradients[0]}, /*retain_graph=*/false,
                                                  /*create_graph=*/false, /*allow_unused=*/true);
    if (!needs_dx) results.insert(results.begin(), at::Tensor());
    results.emplace_back();  // the block's
    return results;
  }

 private:
  static at::Tensor run_again(AutogradContext* context, const at::Tensor& x) {
    const auto recomputation =
        c10::static_intrusive_pointer_cast<Recomputation>(context->saved_data["recomputation"].toCapsule());
    const Entered<GeneratorStates> draws(recomputation->generators, x.device());
    const Entered<Autocast> region(recomputation->autocast, x.device().type());
    const at::AutoGradMode with_graph(true);
    return recomputation->block(x);
  }
};

}  // namespace

at::Tensor checkpoint(const Block& block, const at::Tensor& x, const std::vector<at::Tensor>& parameters) {
  variable_list trainable;
  std::copy_if(parameters.begin(), parameters.end(), std::back_inserter(trainable),
               [](const at::Tensor& parameter) { return parameter.requires_grad(); });
  const bool records = at::GradMode::is_enabled() && (x.requires_grad() || !trainable.empty());
  return records ? Checkpoint::apply(x, at::TensorList(trainable), block) : block(x);
}

}  // namespace strobe::nn
