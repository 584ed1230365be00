// A whole run of FlashAttentionNMT's form: train on a prepared data folder, keep the best model, test it at the end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "nmt/bleu.h"
#include "nmt/config.h"
#include "nmt/evaluate.h"
#include "nmt/training_task.h"
#include "train/trainer.h"

namespace strobe::nmt {

struct ExperimentOptions {
  std::filesystem::path data = "data";
  ModelConfig model;              // the vocabularies' sizes come from the data
  TrainingTaskOptions task;       // its seed and precision are the trainer's
  train::TrainerOptions trainer;  // `folder` holds everything that the run writes
  std::filesystem::path init;     // a checkpoint whose weights the run begins with; empty: random ones
  TranslateOptions test;
  std::optional<BleuTokenizer> bleu_tokenizer;  // null: zh where most targets hold Chinese characters, else 13a
  std::string command, configuration;           // for run.json and config.toml (train/run_record.h)
  int64_t max_train_length = 0;                 // longer training pairs are left out; 0: none
};

/// Trains and tests. Writes run.json, config.toml, train.log, the checkpoints and output.txt into the trainer's folder.
/// Returns 0, or 128 + signal where a signal ended the training (then nothing is tested). Throws strobe::Error for
/// options out of range, before any file is looked at, and for data that is missing; train::CheckpointError for a
/// checkpoint to begin with or to go on from that is missing, before the data are read, or does not fit the model and
/// the data, before anything is written.
int run_experiment(ExperimentOptions options);

/// zh or 13a, by what most of the targets are written in.
BleuTokenizer guess_tokenizer(const Dataset& data);

/// FlashAttentionNMT's output.txt: a line `idx:<i><reference>|||<hypothesis>` for each pair. Replaced as a whole.
void write_output(const std::filesystem::path& file, const Dataset& data, const std::vector<std::string>& hypotheses);

/// FlashAttentionNMT's line: "Test loss: X,  Bleu Score: Y".
std::string test_line(const Evaluation& evaluation);

}  // namespace strobe::nmt
