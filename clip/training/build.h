// The parts of a run, made as its options say.
#pragma once

#include <memory>

#include "clip/text/tokenizer.h"
#include "clip/training/options.h"
#include "clip/training/task.h"
#include "train/trainer_options.h"

namespace strobe::clip {

/// The model on `device`: random weights of the run's seed, those of --clip-weight-path and --bert-weight-path in their
/// places; frozen and synchronised as the options say.
Clip build_model(const TrainingOptions& options, at::Device device, const std::shared_ptr<train::Communicator>& ranks,
                 train::Logger& logger);

/// The teacher of --distillation; null without.
Clip build_teacher(const TrainingOptions& options, at::Device device, train::Logger& logger);

/// The data and what validates. Throws DataError.
struct Data {
  std::unique_ptr<BatchSource> training;
  std::optional<Validator> validator;
};
Data build_data(const TrainingOptions& options, at::Device device, const train::Communicator& ranks,
                const std::shared_ptr<train::Logger>& logger);

/// What the loop is to do, in its own terms. `updates_per_epoch` of the data.
train::TrainerOptions trainer_options(const TrainingOptions& options, at::Device device,
                                      const std::shared_ptr<train::Communicator>& ranks, int64_t updates_per_epoch);

}  // namespace strobe::clip
