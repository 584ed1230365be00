// Options of the `clip` commands that use a trained model.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <filesystem>
#include <string>

#include "cli/nmt_options.h"
#include "clip/evaluation/embedder.h"
#include "clip/text/tokenizer.h"

namespace strobe::cli {

struct ClipModelOptions {
  std::filesystem::path resume;
  std::string vision_model, text_model;  // "": the checkpoint's
  std::string precision = "amp";
  bool use_flash_attention = false;
  std::string attn_type;  // "": dotscale, with use_flash_attention imp_flash_attn
  std::filesystem::path vocabulary;
  int64_t context_length = clip::BertTokenizer::kContextLength;
  RunOptions run;

  void add_to(CLI::App& command);

  clip::Embedder load() const;
  clip::BertTokenizer tokenizer() const;
};

}  // namespace strobe::cli
