// The training loop, for any Task.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "train/logger.h"
#include "train/task.h"
#include "train/trainer_options.h"

namespace strobe::train {

struct EpochStats {
  int64_t epoch = 0;
  double loss = 0.0;          // per counted item
  double seconds = 0.0;       // of training, without validations and checkpoints
  int64_t target_tokens = 0;  // counted items
  int64_t source_tokens = 0;
  double target_tokens_per_second = 0.0;
  double padding = 0.0;                  // share of the slots
  int64_t updates = 0;                   // made
  int64_t skipped_updates = 0;           // whose gradients were not finite, or that ran out of memory
  int64_t peak_memory = 0;               // bytes: the process's resident set on the CPU, the allocator's on a GPU
  std::optional<Validation> validation;  // the one at its end
};

struct TrainResult {
  int exit_status = 0;      // 128 + signal where SIGINT or SIGTERM ended the run; last.pt is written then
  int64_t best_epoch = 0;   // 0 where nothing was validated
  int64_t best_update = 0;  // the update after which the best score was found
  double best_score = 0.0;
  std::vector<EpochStats> epochs;  // those that this run finished
};

class RunFiles;
class RunReport;

/// Trains until the epochs or updates are used up, the score has not improved for `patience` validations, or a signal
/// arrives. The log has RunReport's lines (train/run_report.h), the folder RunCheckpoints' files. The weights after one
/// update are validated once, whatever asks for it; the last ones always, unless nothing is to be validated. A
/// checkpoint is the dict of Task::describe() with "model", "optimizer" and "trainer" added. A resumed run goes on bit
/// for bit as the uninterrupted one would have (on the CPU; on CUDA with `deterministic`), and appends to the logger.
/// Throws strobe::Error for options out of range, CheckpointError for a checkpoint that is missing, does not fit or
/// cannot be written; errors of the task pass through.
TrainResult train(Task& task, const TrainerOptions& options, Logger& logger);

/// The same course with files and a report of one's own.
TrainResult train(Task& task, const TrainerOptions& options, RunFiles& files, RunReport& report);

}  // namespace strobe::train
