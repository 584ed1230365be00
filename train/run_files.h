// Where a run's checkpoints go, and what they look like.
#pragma once

#include <filesystem>

#include "train/run_state.h"
#include "train/trainer_options.h"
#include "train/updater.h"

namespace strobe::train {

/// What a checkpoint is wanted for.
enum class Occasion {
  kBest,              // the validation just made found the best score so far, or nothing was validated and the run ends
  kBeforeValidation,  // which may take long, or fail
  kAfterValidation,   // of one within an epoch
  kUpdates,           // save_every
  kEpoch,             // an epoch is over, or the run: RunState::batch is 0 where it is the epoch, already the next one
  kSignal,            // has ended the run
};

/// All processes call these together; rank 0 writes.
class RunFiles {
 public:
  virtual ~RunFiles() = default;

  /// Model, optimiser, loss scale and random state from options.resume; returns the run's state.
  virtual RunState resume(Updater& updater) = 0;

  /// Writes what the occasion asks for, which may be nothing.
  virtual void save(RunState& state, Occasion occasion, const Updater& updater) = 0;

  /// The file that a run goes on from after a signal.
  virtual std::filesystem::path last() const = 0;
};

/// Whether save_every asks for a checkpoint after the present update.
bool is_save_due(const TrainerOptions& options, const RunState& state);

/// What a checkpoint holds besides weights and optimiser for a run to go on bit for bit: `state`, the loss scale, every
/// rank's random state. For all processes together.
Dict trainer_dict(const RunState& state, const TrainerOptions& options, const Updater& updater);

/// The state in a trainer_dict; sets this process's random state. With another number of processes than the
/// checkpoint's each draws anew, and not what the run has drawn at its start.
RunState restore_trainer(const Dict& trainer, const TrainerOptions& options);

}  // namespace strobe::train
