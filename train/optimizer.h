// Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019) over ATen's fused kernels, and gradient clipping.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "train/value.h"

namespace strobe::train {

struct OptimizerOptions {
  enum class Kind { kAdam, kAdamW };
  Kind kind = Kind::kAdam;
  double beta1 = 0.9;
  double beta2 = 0.98;
  double eps = 1e-9;
  double weight_decay = 0.0;  // Adam adds it to the gradient, AdamW decays the weight
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Parameters that share a weight decay.
struct ParameterGroup {
  NamedTensors parameters;
  double weight_decay = 0.0;
};

/// First the matrices, then what does not decay: biases and norms (dim < 2). One group where weight_decay is 0.
std::vector<ParameterGroup> decayed_matrices(const NamedTensors& parameters, double weight_decay);

/// One optimiser for parameters of any devices and dtypes. Parameters without a gradient are passed over.
class Optimizer {
 public:
  /// Leaves out frozen parameters, the second name of tied ones, and groups without any. The groups' weight decay
  /// counts, not that of the options.
  Optimizer(const std::vector<ParameterGroup>& groups, const OptimizerOptions& options);
  Optimizer(const NamedTensors& parameters, const OptimizerOptions& options)  // decayed_matrices
      : Optimizer(decayed_matrices(parameters, options.weight_decay), options) {}

  /// One update with the gradients that the parameters hold. Where `found_inf` (0-d fp32 on the parameters' device) is
  /// defined and 1, nothing changes, not even the step counts; it is never read by the host.
  void step(double lr, const at::Tensor& found_inf = {});

  /// Makes every gradient undefined, so that the next backward allocates or moves instead of adding to zeros.
  void clear_gradients();

  NamedTensors parameters() const;            // each once, in the order of the state
  std::vector<at::Tensor> gradients() const;  // those that are defined

  /// torch.optim's layout: {"state": {i: {"step", "exp_avg", "exp_avg_sq"}}, "param_groups": [...]}, parameters
  /// numbered across the groups.
  Dict state_dict() const;

  /// Throws CheckpointError where the numbers of groups or parameters or their shapes differ. Step counts may be
  /// numbers, as torch wrote them before 1.12.
  void load_state_dict(const Dict& state);

 private:
  struct Slot {
    std::string name;
    at::Tensor parameter, step, exp_avg, exp_avg_sq;
  };
  /// What one call of a fused kernel can take: slots of one group on one device with one dtype.
  struct Bucket {
    double weight_decay;
    at::Tensor lr;  // 0-d fp32 on the device, undefined on the CPU, whose kernel takes the host's double
    std::vector<std::size_t> slots;
  };
  void add_group(const NamedTensors& parameters, double weight_decay);
  void update(const Bucket& bucket, double lr, const at::Tensor& found_inf);
  Dict group_state(std::size_t group) const;

  OptimizerOptions options_;
  double lr_ = 0.0;  // of the last update, for state_dict
  std::vector<Slot> slots_;
  std::vector<Bucket> buckets_;
  struct Group {
    double weight_decay;
    std::size_t begin, end;  // in slots_
  };
  std::vector<Group> groups_;
};

/// The 2-norm over all gradients, 0-d on the device of the first, without synchronising.
at::Tensor gradient_norm(const std::vector<at::Tensor>& gradients);

/// Multiplies the gradients by scale * min(1, max_norm / (scale * norm + 1e-6)), or by scale alone where max_norm is 0;
/// `scale` and `norm` are 0-d tensors. Without synchronising.
void scale_and_clip(const std::vector<at::Tensor>& gradients, const at::Tensor& norm, const at::Tensor& scale,
                    double max_norm);

}  // namespace strobe::train
