// What a run of the training loop is asked to do.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>

#include "train/distributed/communicator.h"
#include "train/optimizer.h"
#include "train/precision.h"
#include "train/schedule.h"

namespace strobe::train {

struct TrainerOptions {
  std::filesystem::path folder = "experiment";  // model.pth (the best), last.pt, checkpoint-<update>.pt
  std::filesystem::path resume;                 // one of those to go on from; empty: start anew
  at::Device device = at::kCPU;                 // where the model is and the batches are put
  Precision precision = Precision::kFp32;
  int64_t epochs = 40;
  int64_t max_updates = 0;             // 0: no limit
  int64_t accumulation = 1;            // batches per update and process
  double clip_norm = 0.0;              // of the gradients' 2-norm; 0: off
  int64_t patience = 5;                // validations without a better score before the run ends; 0: never
  int64_t validate_every = 1;          // epochs; 0: not by epochs
  int64_t validate_every_updates = 0;  // updates; 0: not by updates. Both 0: never, then model.pth is the last state
  int64_t save_every = 0;      // updates between checkpoints, besides those after epochs and validations; 0: none
  int64_t keep_last = 0;       // how many checkpoint-<update>.pt to keep besides last.pt
  uint64_t seed = 0;           // of torch's generators, set at the start of a run that is not resumed
  bool tensorboard = true;     // curves for TensorBoard in folder/tensorboard
  bool deterministic = false;  // ask ATen for deterministic kernels
  OptimizerOptions optimizer;
  /// The processes that train together, each with the same options. An update takes accumulation times as many batches
  /// as there are processes.
  std::shared_ptr<Communicator> ranks = std::make_shared<Communicator>();
  ScheduleOptions schedule;  // cosine's total_updates 0: as many as the run makes at most
};

/// Throws strobe::Error naming the option that is out of range.
void validate(const TrainerOptions& options);

/// How many updates a run makes at most whose epochs have `batches` batches: by epochs or max_updates, whichever ends
/// it first.
int64_t planned_updates(const TrainerOptions& options, int64_t batches);

}  // namespace strobe::train
