// What `strobe clip train` is asked for: the original's options (cn_clip, training/params.py) with their defaults, and
// those of our own.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace strobe::clip {

struct TrainingOptions {
  // Data
  std::filesystem::path train_data, val_data;  // LMDB folders; val_data empty: no validation
  std::filesystem::path vocabulary;            // empty: that of the installed cn_clip
  int64_t num_workers = 4, valid_num_workers = 1;
  int64_t batch_size = 64, valid_batch_size = 64;  // of one process
  int64_t context_length = 52;
  bool use_augment = false;
  // Model
  std::string vision_model = "ViT-B-16";
  std::string text_model = "RoBERTa-wwm-ext-base-chinese";
  std::filesystem::path clip_weight_path, bert_weight_path;
  std::string attn_type;  // empty: dotscale, with use_flash_attention imp_flash_attn
  bool use_flash_attention = false;
  bool grad_checkpointing = false;
  bool freeze_vision = false, freeze_text = false;
  bool use_bn_sync = false;
  double mask_ratio = 0.0;
  std::string precision = "amp";  // amp, amp_bf16, fp32; fp16 is refused
  // Optimisation
  std::optional<double> lr, beta1, beta2, eps;  // by the vision model
  double wd = 0.2;
  int64_t warmup = 500;
  bool skip_scheduler = false;
  double grad_clip_norm = 0.0;  // 0: off
  int64_t accum_freq = 1;
  // Loss
  bool gather_with_grad = false, local_loss = false, skip_aggregate = false;
  bool distillation = false;
  std::string teacher_model_name;
  double kd_loss_weight = 0.5;
  // Course
  int64_t max_epochs = 32;
  int64_t max_steps = 0;  // 0: by max_epochs
  int64_t valid_step_interval = 0, valid_epoch_interval = 1;
  uint64_t seed = 123;
  // Files and log
  std::filesystem::path logs = "./logs/";  // "none" or empty: nothing is written
  std::string name = "train_clip";
  int64_t log_interval = 10;
  bool report_training_batch_acc = false;
  int64_t save_epoch_frequency = 1, save_step_frequency = -1;
  std::filesystem::path resume;
  bool reset_optimizer = false, reset_data_offset = false;
  bool debug = false;
  bool deterministic = false;
  std::string command, configuration;  // for run.json and config.toml (train/run_record.h)

  bool writes_files() const;
  std::filesystem::path folder() const { return logs / name; }
  std::filesystem::path checkpoints() const { return folder() / "checkpoints"; }
};

/// Throws strobe::Error naming the option, before any file is looked at. Gives lr, beta1, beta2, eps and attn_type
/// their values.
void resolve(TrainingOptions& options);

/// Sorted names of the options, as the original spells them, and their values, as Python prints them.
std::vector<std::pair<std::string, std::string>> parameters(const TrainingOptions& options);

}  // namespace strobe::clip
