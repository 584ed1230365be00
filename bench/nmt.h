// `strobe bench nmt`: updates of a translation model and translations by it, with each of our attention types, and with
// nn.Transformer and CTranslate2 where a Python that has them is named.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "bench/nmt_workload.h"
#include "bench/step_profile.h"
#include "train/precision.h"

namespace strobe::bench {

struct NmtBenchOptions {
  NmtWorkloadOptions workload;
  std::vector<std::string> attn_types = {"dotscale", "flash_attn", "imp_flash_attn"};
  std::vector<std::string> tasks = {"train", "decode"};
  std::filesystem::path model;  // a checkpoint of `nmt train`; empty: weights at random, translations of fixed length
  train::Precision precision = train::Precision::kFp32;
  int64_t beam = 3;
  std::string peer_python;  // empty: ours alone
  bool profile = false;     // of our training
  Budget budget;
};

/// One contender in one case.
struct NmtRow {
  std::string task;       // "train": forward, backward and update; "decode": from ids to ids
  std::string attn_type;  // ours, "nn.Transformer" or "CTranslate2"
  std::string data;
  int64_t batch = 0;
  double length = 0.0;
  int64_t beam = 0;  // of "decode"
  ContenderResult::Status status = ContenderResult::Status::kMeasured;
  std::string why;                     // where it cannot run
  std::vector<double> ms;              // of a batch: the mean over the case's, one for each time through it
  double tokens = 0.0;                 // of a batch: real target tokens, of translations the ends of sentences included
  std::optional<double> peak_mib;      // torch's allocator beyond what it held before; not known of peers
  std::optional<double> agreement;     // of peers: the share of translations that are ours to the last token
  std::optional<StepProfile> profile;  // of a batch
};

struct NmtReport {
  nmt::ModelConfig model;
  nlohmann::ordered_json peer_versions;
};

/// Calls `done` with the rows of each task and case when they are there. A peer must compute what we compute before it
/// is timed: the same loss of the same weights, and translations with the same scores; else its row says so.
NmtReport bench_nmt(const NmtBenchOptions& options, const std::function<void(const std::vector<NmtRow>&)>& done);

}  // namespace strobe::bench
