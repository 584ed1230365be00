#include "train/trainer_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "strobe/types.h"

namespace strobe::train {

void validate(const TrainerOptions& options) {
  const auto require = [](bool holds, const char* expected, auto found) {
    if (!holds) throw Error(fmt::format("train: expected {}, found {}", expected, found));
  };
  require(options.epochs >= 1, "epochs >= 1", options.epochs);
  require(options.max_updates >= 0, "max_updates >= 0", options.max_updates);
  require(options.accumulation >= 1, "accumulation >= 1", options.accumulation);
  require(options.clip_norm >= 0, "clip_norm >= 0", options.clip_norm);
  require(options.patience >= 0, "patience >= 0", options.patience);
  require(options.validate_every >= 0, "validate_every >= 0", options.validate_every);
  require(options.validate_every_updates >= 0, "validate_every_updates >= 0", options.validate_every_updates);
  require(options.save_every >= 0, "save_every >= 0", options.save_every);
  require(options.keep_last >= 0, "keep_last >= 0", options.keep_last);
  ScheduleOptions schedule = options.schedule;
  if (schedule.total_updates == 0) schedule.total_updates = schedule.warmup + 1;  // not known before the data
  validate(schedule);
}

int64_t planned_updates(const TrainerOptions& options, int64_t batches) {
  const int64_t batches_per_update = options.accumulation * options.ranks->size();
  const int64_t updates = options.epochs * ((batches + batches_per_update - 1) / batches_per_update);
  return options.max_updates > 0 ? std::min(updates, options.max_updates) : updates;
}

}  // namespace strobe::train
