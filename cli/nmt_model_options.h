// The options of `nmt train` that shape the model.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <optional>

#include "nmt/config.h"

namespace strobe::cli {

class ModelOptions {
 public:
  void add_to(CLI::App& command);

  /// What was said, with --layers for the sides that were not given their own.
  nmt::ModelConfig config() const;

 private:
  nmt::ModelConfig config_;
  int64_t layers_ = 6;
  std::optional<int64_t> encoder_layers_, decoder_layers_;
};

}  // namespace strobe::cli
