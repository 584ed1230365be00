// When a run is validated, and what becomes of the score.
#pragma once

#include "train/run_state.h"
#include "train/task.h"
#include "train/trainer_options.h"

namespace strobe::train {

/// Whether validate_every_updates asks for a validation of the present weights.
bool is_due_by_updates(const TrainerOptions& options, const RunState& state);

/// Whether validate_every asks for one at the end of `epoch`. False where the present weights have been validated.
bool is_due_by_epochs(const TrainerOptions& options, const RunState& state, int64_t epoch);

/// Whether the present weights, being the run's last, still have to be validated.
bool is_due_at_end(const TrainerOptions& options, const RunState& state);

/// One pass over the validation data: eval mode, autocast, no gradients. Rank 0 makes it, the others wait for what it
/// finds, unless the task works together.
Validation run_validation(Task& task, const TrainerOptions& options);

/// Takes the score into the state; true where it is the best so far.
bool note_score(RunState& state, int64_t epoch, double score);

/// Whether the score has not improved for `patience` validations.
bool is_out_of_patience(const TrainerOptions& options, const RunState& state);

}  // namespace strobe::train
