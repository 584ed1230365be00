// The dtype that forward and backward run in; parameters and optimiser stay fp32.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "train/value.h"

namespace strobe::train {

enum class Precision { kFp32, kBf16, kFp16 };

const char* precision_name(Precision precision);     // "fp32", "bf16", "fp16"
Precision parse_precision(const std::string& name);  // throws strobe::Error

/// Autocast on one device type while it lives (off for kFp32); restores enabled, dtype, cache setting and nesting, and
/// drops the cached casts of the weights when it is the outermost: they are stale after the next update.
class AutocastGuard {
 public:
  AutocastGuard(at::DeviceType device, Precision precision);
  ~AutocastGuard();
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  at::DeviceType device_;
  bool enabled_before_;
  at::ScalarType dtype_before_;
  bool cache_before_;
};

/// Dynamic loss scaling for fp16 (Micikevicius et al. 2018, section 3.2): doubled after 2000 finite updates, halved
/// after one that is not. Lives on the device and never synchronises but in state_dict.
class LossScaler {
 public:
  LossScaler(at::Device device, double initial_scale);

  const at::Tensor& scale() const { return scale_; }  // 0-d fp32
  void update(const at::Tensor& found_inf);           // 0-d fp32: 1 where the gradients held an inf or NaN, else 0

  Dict state_dict() const;  // as torch.amp.GradScaler's
  void load_state_dict(const Dict& state);

 private:
  at::Tensor scale_;
  at::Tensor growth_tracker_;  // 0-d int32
};

}  // namespace strobe::train
