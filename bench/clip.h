// `strobe bench clip`: one training step of each size of Chinese-CLIP with the materialised attention and with
// FlashAttention, beside cn_clip and transformers where a Python that has them is named.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/clip_workload.h"
#include "bench/measure.h"
#include "bench/step_profile.h"
#include "train/distributed/communicator.h"

namespace strobe::bench {

struct ClipBenchOptions {
  std::vector<std::string> sizes = {"RN50", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px", "ViT-H/14"};
  std::vector<std::string> attn_types = {"dotscale", "imp_flash_attn"};
  int64_t batch = 0;  // of a GPU; 0: the size's
  ClipSettings settings;
  at::Device device = at::kCPU;
  std::string peer_python;                                       // empty: ours alone
  std::vector<std::string> peers = {"cn_clip", "transformers"};  // of peer_names()
  bool profile = false;                                          // of ours
  int64_t repetitions = 10;
  int64_t steps = 3;  // of a repetition, in a row without waiting for the device
  uint64_t seed = 1;
  std::shared_ptr<train::Communicator> ranks = std::make_shared<train::Communicator>();  // one a GPU
};

/// One contender at one size.
struct ClipRow {
  std::string size;
  int64_t batch = 0;      // of a GPU
  int64_t gpus = 1;       // processes, on the CPU too
  std::string attn_type;  // ours or a peer
  ContenderResult::Status status = ContenderResult::Status::kMeasured;
  std::string why;                 // where it cannot run
  std::vector<double> ms;          // of a step, one for each repetition
  std::optional<double> peak_gib;  // the most that tensors take at once, model and optimiser included
  std::optional<double> loss;      // in evaluation mode; where there are peers
  std::optional<StepProfile> profile;
};

/// "cn_clip" and "transformers" as they are, and "cn_clip_flash" and "transformers_strobe", which attend with strobe's
/// Python package.
std::vector<std::string> peer_names();

/// Calls `measured` with each row when it is there, size by size; returns the peers' versions. One contender at a time
/// is in memory, with the same weights and the same batch. A peer must find our loss before it is timed; else its row
/// says so.
///
/// Several processes all call this. Each of our types is measured twice then, by rank 0 while the others wait, and by
/// all together, with the time of the slowest and the memory of the largest; what fails together ends the measurement.
/// Peers are for one process alone.
nlohmann::ordered_json bench_clip(const ClipBenchOptions& options, const std::function<void(const ClipRow&)>& measured);

}  // namespace strobe::bench
