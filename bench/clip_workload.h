// What `strobe bench clip` trains on, and the file that carries it to the peers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "train/precision.h"
#include "train/value.h"

namespace strobe::bench {

/// A row of Chinese-CLIP's table of speed and memory (its page on FlashAttention).
struct ClipSize {
  std::string name;          // the table's
  std::string vision, text;  // clip/model/config.h
  int64_t batch = 0;         // of a GPU
};

/// The five of the table, then "tiny", the demo's towers, for a CPU.
const std::vector<ClipSize>& clip_sizes();

/// Throws strobe::Error naming the known ones.
const ClipSize& clip_size(const std::string& name);

/// Random images and captions.
struct ClipBatch {
  at::Tensor images;   // uint8 [B, R, R, 3], on the device
  at::Tensor ids;      // int64 [B, 52], on the device: 8 to 29 tokens, the lengths evenly drawn, then padding
  at::Tensor lengths;  // int64 [B], on the CPU
};

/// The same for equal arguments.
ClipBatch clip_batch(const ClipSize& size, uint64_t seed, at::Device device);

struct ClipSettings {
  train::Precision precision = train::Precision::kFp16;
  double lr = 1e-5;  // small, so that the work stays the same over many steps
};

/// Writes what Python's torch.load(weights_only=True) reads: "vision" and "text" (the sizes of the towers), "model"
/// (the weights by the original's names), "images", "ids", "mean", "std" (of the pixels), "precision", "lr".
void write_clip_workload(const std::filesystem::path& file, const ClipSize& size, const ClipBatch& batch,
                         const train::Dict& state, const ClipSettings& settings);

}  // namespace strobe::bench
