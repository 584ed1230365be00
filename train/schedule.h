// Learning rates as functions of the update's number alone, so that a resumed run needs no state of them.
#pragma once

#include <cstdint>
#include <string>

namespace strobe::train {

struct ScheduleOptions {
  enum class Kind { kConstant, kNoam, kInverseSqrt, kCosine, kClipCosine };
  Kind kind = Kind::kNoam;
  double lr = 3e-4;           // the peak; not used by Noam
  double factor = 1.0;        // Noam
  int64_t d_model = 512;      // Noam
  int64_t warmup = 10000;     // updates of linear warm-up from 0; Noam and inverse square root need at least 1
  int64_t total_updates = 0;  // the cosines: where they reach min_lr and stay
  double min_lr = 0.0;        // the cosines
};

/// Throws strobe::Error naming the option that is out of range.
void validate(const ScheduleOptions& options);

/// The learning rate of update `step`, counted from 1:
///   constant      lr * min(1, step / warmup)
///   Noam          factor * d_model^-0.5 * min(step^-0.5, step * warmup^-1.5)   (Vaswani et al. 2017, equation 3)
///   inverse sqrt  lr * min(step / warmup, sqrt(warmup / step))
///   cosine        lr * step / warmup, then min_lr + (lr - min_lr) * (1 + cos(pi * progress)) / 2   (Loshchilov &
///   Hutter 2017)
///   CLIP's cosine lr * step / warmup, then the cosine of the update before: the first after the warm-up has the full
///   rate, the last is just above min_lr, as Chinese-CLIP and open_clip have it. May end within the warm-up.
double learning_rate(const ScheduleOptions& options, int64_t step);

}  // namespace strobe::train
