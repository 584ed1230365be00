// The mean of several checkpoints of one training run, often better than the best of them (Vaswani et al. 2017, section
// 6.1).
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "train/value.h"

namespace strobe::nmt {

/// A checkpoint without a training run's state that translates like any other: what describes the first file, and as
/// "model" the mean of each weight, summed in double and rounded once; "averaged" lists the files. Throws
/// train::CheckpointError naming the file that is missing or no translation model, and where it differs from the first
/// in vocabularies, configuration (dropouts and attn_type may), names, shapes or types of weights.
train::Dict average_checkpoints(const std::vector<std::filesystem::path>& files);

/// The `count` newest checkpoint-<update>.pt of a run's folder, oldest first. Throws strobe::Error where there are
/// fewer.
std::vector<std::filesystem::path> newest_checkpoints(const std::filesystem::path& folder, int64_t count);

}  // namespace strobe::nmt
