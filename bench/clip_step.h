// One training step of Chinese-CLIP, as `strobe clip train` makes it: its task, its updater, a batch that stays.
#pragma once

#include <memory>
#include <string>

#include "bench/clip_workload.h"
#include "clip/model/clip.h"
#include "clip/training/task.h"
#include "train/distributed/communicator.h"
#include "train/updater.h"

namespace strobe::bench {

class ClipStep {
 public:
  /// Puts a model with these weights and its optimiser onto the device.
  ClipStep(const ClipSize& size, const std::string& attn_type, const train::Dict& state, const ClipBatch& batch,
           const ClipSettings& settings, at::Device device, std::shared_ptr<train::Communicator> ranks);

  /// Normalises the images, then forward, loss, backward and the update. Does not wait for the device.
  void run();

  /// The loss in evaluation mode.
  double loss();

 private:
  train::TrainerOptions options_;
  clip::Clip model_;
  const ClipBatch& batch_;
  clip::ClipTask task_;
  train::Updater updater_;
  train::EpochTotals totals_;
  double lr_;
};

}  // namespace strobe::bench
