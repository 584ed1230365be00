// One training step of Chinese-CLIP, as `strobe clip train` makes it: its task, its updater, a batch that stays.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "bench/clip_workload.h"
#include "clip/model/clip.h"
#include "clip/training/task.h"
#include "train/distributed/communicator.h"
#include "train/updater.h"

namespace strobe::bench {

/// With random weights on `device`: the same for equal sizes and seeds, whatever the attention.
clip::Clip make_clip(const ClipSize& size, const std::string& attn_type, uint64_t seed, at::Device device);

class ClipStep {
 public:
  /// Trains `model` on its device, with an optimiser that is new.
  ClipStep(const clip::Clip& model, const ClipBatch& batch, const ClipSettings& settings, at::Device device,
           std::shared_ptr<train::Communicator> ranks);

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
