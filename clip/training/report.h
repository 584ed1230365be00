// The log of a run in the original's words (cn_clip, training/train.py).
#pragma once

#include <string>

#include "clip/training/options.h"
#include "clip/training/task.h"
#include "train/run_report.h"

namespace strobe::clip {

/// What a line of training says.
struct TrainingLine {
  int64_t step = 0, max_steps = 0, epoch = 0;
  int64_t samples = 0, samples_per_epoch = 0;  // of the epoch, all processes
  double percent = 0.0;                        // of the epoch
  double loss = 0.0;
  std::optional<double> image_to_text, text_to_image;  // shares
  double data_seconds = 0.0, batch_seconds = 0.0, lr = 0.0, logit_scale = 0.0;
  int64_t global_batch_size = 0;
};

/// "Global Steps: 1/735 | Train Epoch: 1 [1024/250880 (0%)] | Loss: 2.371020 | ..."
std::string format_line(const TrainingLine& line);

/// "Validation Result (epoch 1 @ 150 steps) | Valid Loss: 0.502810 | Image2Text Acc: 84.95 | ..."
std::string format_validation(const ValidationResult& result, int64_t epoch, int64_t step, double logit_scale);

/// "Validation Recall (epoch 1 @ 150 steps) | Text2Image R@1: 52.10 R@5: ... Mean: ... | Image2Text ... | ..."
std::string format_recall(const ValidationResult& result, int64_t epoch, int64_t step);

/// Times are means over the updates since the line before, waits for the device included, validations and checkpoints
/// not.
class ClipReport : public train::RunReport {
 public:
  ClipReport(const TrainingOptions& options, const train::TrainerOptions& trainer, const ClipTask& task,
             train::Logger& logger);

  void resumed(const train::RunState&) override {}  // ClipFiles has said it
  bool wants_updates(const train::RunState& state) const override;
  void updates(const train::RunState& state, int64_t batches) override;
  void epoch(const train::EpochStats& stats) override;
  void validation_begins(const train::RunState& state, int64_t epoch) override;
  void validation(const train::RunState& state, int64_t epoch, bool by_updates,
                  const train::Validation& found) override;
  void score(const train::RunState&, bool) override {}  // no file is kept for the best

 protected:
  std::string progress_text(const train::RunState& state, int64_t batches) const override;

 private:
  bool is_line_due(const train::RunState& state) const;
  TrainingLine line(const train::RunState& state, int64_t batches);

  const TrainingOptions& clip_;
  const ClipTask& task_;
  int64_t epoch_ = 0, last_update_ = -1;  // of the line before
  double last_seconds_ = 0.0, last_data_seconds_ = 0.0;
};

}  // namespace strobe::clip
