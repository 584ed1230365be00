// Options that several `nmt` commands share.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <string>

#include "nmt/translate.h"
#include "train/distributed/world.h"
#include "train/precision.h"

namespace strobe::cli {

/// --device, --precision, --threads.
struct RunOptions {
  std::string device = "auto";
  std::string precision = "auto";
  int threads = 0;  // 0: torch's choice

  void add_to(CLI::App& command);
  void add_device(CLI::App& command);  // --device, --threads alone

  /// Sets the number of threads: several processes share the machine's cores. cuda where there is a GPU unless told,
  /// each process its own; throws strobe::Error where there is none.
  at::Device start(const train::World& world = {}) const;

  /// auto: fp32 on the CPU; on a GPU bf16 from sm_80 on, else fp16.
  train::Precision precision_on(at::Device device) const;
};

/// --beam, --max-length, --min-length, --length-penalty, --word-penalty.
void add_search_options(CLI::App& command, nmt::SearchOptions& options);

/// --attn_type, --attn-type.
CLI::Option* add_attn_type(CLI::App& command, std::string& attn_type);

/// What every command that translates with a checkpoint takes: --batch-size, --attn_type, the search's and the run's.
void add_translate_options(CLI::App& command, std::string& attn_type, nmt::TranslateOptions& translate,
                           RunOptions& run);

}  // namespace strobe::cli
