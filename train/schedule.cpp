#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "strobe/types.h"

namespace strobe::train {
namespace {

using Kind = ScheduleOptions::Kind;

void require(bool holds, const std::string& expected, double found) {
  if (!holds) throw Error("schedule: expected " + expected + ", found " + std::to_string(found));
}

double noam(const ScheduleOptions& options, double step) {
  const double warmup = static_cast<double>(options.warmup);
  return options.factor * std::pow(static_cast<double>(options.d_model), -0.5) *
         std::min(std::pow(step, -0.5), step * std::pow(warmup, -1.5));
}

/// `done`: updates of the descent.
double cosine(const ScheduleOptions& options, double done) {
  const auto descent = static_cast<double>(options.total_updates - options.warmup);
  const double progress = std::min(1.0, done / descent);
  return options.min_lr + (options.lr - options.min_lr) * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

}  // namespace

void validate(const ScheduleOptions& options) {
  const bool noam = options.kind == Kind::kNoam;
  const bool needs_warmup = noam || options.kind == Kind::kInverseSqrt;
  require(std::isfinite(options.lr) && (noam || options.lr > 0), "lr > 0", options.lr);
  require(std::isfinite(options.factor) && options.factor > 0, "factor > 0", options.factor);
  require(options.d_model > 0, "d_model > 0", static_cast<double>(options.d_model));
  require(options.warmup >= (needs_warmup ? 1 : 0), needs_warmup ? "warmup >= 1" : "warmup >= 0",
          static_cast<double>(options.warmup));
  if (options.kind != Kind::kCosine && options.kind != Kind::kClipCosine) return;
  require(options.kind == Kind::kClipCosine || options.total_updates > options.warmup,
          "total_updates > warmup (" + std::to_string(options.warmup) + " updates of rising learning rate)",
          static_cast<double>(options.total_updates));
  require(options.min_lr >= 0 && options.min_lr <= options.lr, "0 <= min_lr <= lr", options.min_lr);
}

double learning_rate(const ScheduleOptions& options, int64_t step) {
  const double s = static_cast<double>(step);
  const double warmup = static_cast<double>(options.warmup);
  switch (options.kind) {
    case Kind::kConstant:
      return options.lr * (step < options.warmup ? s / warmup : 1.0);
    case Kind::kNoam:
      return noam(options, s);
    case Kind::kInverseSqrt:
      return options.lr * std::min(s / warmup, std::sqrt(warmup / s));
    case Kind::kCosine:
      return step < options.warmup ? options.lr * s / warmup : cosine(options, s - warmup);
    case Kind::kClipCosine:
      return step <= options.warmup ? options.lr * s / warmup : cosine(options, s - 1 - warmup);
  }
  throw Error("schedule: unknown kind");
}

}  // namespace strobe::train
