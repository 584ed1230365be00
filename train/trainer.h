// The training loop, for any Task.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "train/logger.h"
#include "train/optimizer.h"
#include "train/precision.h"
#include "train/schedule.h"
#include "train/task.h"

namespace strobe::train {

struct TrainerOptions {
  std::filesystem::path folder = "experiment";  // model.pth (the best), last.pt
  std::filesystem::path resume;                 // a last.pt or model.pth to go on from; empty: start anew
  at::Device device = at::kCPU;                 // where the model is and the batches are put
  Precision precision = Precision::kFp32;
  int64_t epochs = 40;
  int64_t max_updates = 0;     // 0: no limit
  int64_t accumulation = 1;    // batches per update
  double clip_norm = 0.0;      // of the gradients' 2-norm; 0: off
  int64_t patience = 5;        // validations without a better score before the run ends; 0: never
  int64_t validate_every = 1;  // epochs; 0: never (then model.pth is the last state)
  int64_t save_every = 0;      // updates between writes of last.pt, besides that after each epoch; 0: none between
  uint64_t seed = 0;           // of torch's generators, set at the start of a run that is not resumed
  bool tensorboard = true;     // curves for TensorBoard in folder/tensorboard
  bool deterministic = false;  // ask ATen for deterministic kernels
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
};

struct EpochStats {
  int64_t epoch = 0;
  double loss = 0.0;          // per counted item
  double seconds = 0.0;       // of training, without validation
  int64_t target_tokens = 0;  // counted items
  int64_t source_tokens = 0;
  double target_tokens_per_second = 0.0;
  double padding = 0.0;         // share of the slots
  int64_t updates = 0;          // made
  int64_t skipped_updates = 0;  // whose gradients were not finite, or that ran out of memory
  int64_t peak_memory = 0;      // bytes: the process's resident set on the CPU, the allocator's on a GPU
  std::optional<Validation> validation;
};

struct TrainResult {
  int exit_status = 0;     // 128 + signal where SIGINT or SIGTERM ended the run; last.pt is written then
  int64_t best_epoch = 0;  // 0 where nothing was validated
  double best_score = 0.0;
  std::vector<EpochStats> epochs;  // those that this run finished
};

/// Trains until the epochs or updates are used up, the score has not improved for `patience` validations, or a signal
/// arrives. Log lines (X and Y are decimals):
///   Epoch: N, loss: X, time: SECONDS
///   Rate: X target tokens/s, padding: X %, peak memory: X MiB, updates: N, skipped: N
///   Epoch: N, Dev loss: X, <score_name()>: Y
///   -------- Save Best Model! --------   or   Early Stop Left: K
///   -------- Early Stop! --------
/// A checkpoint is the dict of Task::describe() with "model", "optimizer" and "trainer" added. A resumed run goes on
/// bit for bit as the uninterrupted one would have (on the CPU; on CUDA with `deterministic`). Throws strobe::Error for
/// options out of range, CheckpointError for a checkpoint that is missing or does not fit; errors of the task pass
/// through.
TrainResult train(Task& task, const TrainerOptions& options, Logger& logger);

}  // namespace strobe::train
