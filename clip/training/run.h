// A whole run of Chinese-CLIP's training.
#pragma once

#include <memory>

#include "clip/training/options.h"
#include "train/distributed/communicator.h"

namespace strobe::clip {

/// Trains as the original's training/main.py does, on `device`. Returns 0, or 128 + signal where a signal ended the
/// run. Throws strobe::Error for options out of range and files that are missing, before anything is written; DataError
/// and train::CheckpointError for what does not fit. On the CPU `amp` computes in fp32.
int run_training(TrainingOptions options, at::Device device, const std::shared_ptr<train::Communicator>& ranks);

}  // namespace strobe::clip
