// Where a run stands, in the form that a checkpoint keeps it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "train/value.h"

namespace strobe::train {

/// What one epoch has added up so far.
struct EpochTotals {
  double loss_sum = 0.0;
  double loss_count = 0.0;  // the counted items of the batches with a finite loss
  int64_t target_tokens = 0;
  int64_t source_tokens = 0;
  int64_t slots = 0;
  int64_t padding = 0;
  int64_t updates = 0;        // tried, those that were not finite included
  int64_t not_finite = 0;     // updates skipped because a gradient was not finite
  int64_t out_of_memory = 0;  // updates dropped because memory ran out
  double seconds = 0.0;       // without validations and checkpoints

  double loss() const;  // per counted item
  double target_tokens_per_second() const;
  double padding_share() const;  // of the slots
};

struct RunState {
  int64_t epoch = 1;   // the present one
  int64_t batch = 0;   // batches of it that are done
  int64_t update = 0;  // of the whole run, skipped ones included
  std::optional<double> best_score;
  int64_t best_epoch = 0;
  int64_t best_update = 0;
  int64_t bad_validations = 0;   // since the best
  int64_t validated_update = 0;  // the last one whose weights were validated
  int64_t processes = 1;         // that trained it
  std::vector<int64_t> kept;     // updates whose checkpoint-<update>.pt this run has written and not removed
  EpochTotals totals;
};

/// part / whole, 0 where there is nothing.
double ratio(double part, double whole);

Dict to_dict(const RunState& state);
RunState run_state_from(const Dict& dict);  // throws CheckpointError

}  // namespace strobe::train
