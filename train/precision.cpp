#include "train/precision.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

namespace strobe::train {
namespace {

constexpr double kGrowthFactor = 2.0;
constexpr double kBackoffFactor = 0.5;
constexpr int64_t kGrowthInterval = 2000;

}  // namespace

const char* precision_name(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "fp32";
    case Precision::kBf16:
      return "bf16";
    case Precision::kFp16:
      return "fp16";
  }
  throw Error("precision: unknown value");
}

Precision parse_precision(const std::string& name) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16, Precision::kFp16}) {
    if (name == precision_name(precision)) return precision;
  }
  throw Error("precision: expected fp32, bf16 or fp16, found \"" + name + "\"");
}

AutocastGuard::AutocastGuard(at::DeviceType device, Precision precision)
    : device_(device),
      enabled_before_(at::autocast::is_autocast_enabled(device)),
      dtype_before_(at::autocast::get_autocast_dtype(device)),
      cache_before_(at::autocast::is_autocast_cache_enabled()) {
  at::autocast::increment_nesting();
  at::autocast::set_autocast_enabled(device, precision != Precision::kFp32);
  if (precision != Precision::kFp32) {
    at::autocast::set_autocast_dtype(device, precision == Precision::kBf16 ? at::kBFloat16 : at::kHalf);
  }
  at::autocast::set_autocast_cache_enabled(true);
}

AutocastGuard::~AutocastGuard() {
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, enabled_before_);
  at::autocast::set_autocast_dtype(device_, dtype_before_);
  at::autocast::set_autocast_cache_enabled(cache_before_);
}

LossScaler::LossScaler(at::Device device, double initial_scale)
    : scale_(at::full({}, initial_scale, at::device(device).dtype(at::kFloat))),
      growth_tracker_(at::zeros({}, at::device(device).dtype(at::kInt))) {}

void LossScaler::update(const at::Tensor& found_inf) {
  at::_amp_update_scale_(scale_, growth_tracker_, found_inf, kGrowthFactor, kBackoffFactor, kGrowthInterval);
}

Dict LossScaler::state_dict() const {
  Dict state;
  state["scale"] = scale_.item<double>();
  state["growth_factor"] = kGrowthFactor;
  state["backoff_factor"] = kBackoffFactor;
  state["growth_interval"] = kGrowthInterval;
  state["_growth_tracker"] = growth_tracker_.item<int64_t>();
  return state;
}

void LossScaler::load_state_dict(const Dict& state) {
  scale_.fill_(state.at("scale").as_double());
  growth_tracker_.fill_(state.at("_growth_tracker").as_int());
}

}  // namespace strobe::train
