// Features of all texts or images of a data set, into files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "clip/data/loader.h"
#include "clip/evaluation/embedder.h"
#include "clip/text/tokenizer.h"

namespace strobe::clip {

using OnProgress = std::function<void(int64_t done, int64_t total)>;

struct TextExtraction {
  std::filesystem::path texts;  // {split}_texts.jsonl
  std::filesystem::path output;
  int64_t batch_size = 64;
  int64_t context_length = BertTokenizer::kContextLength;
};

struct ImageExtraction {
  std::filesystem::path images;  // the LMDB folder
  std::filesystem::path output;
  int64_t batch_size = 64;
  int workers = 4;
};

struct Extracted {
  int64_t features = 0;
  int64_t skipped = 0;  // images that could not be read
};

/// Both write features.h's lines: texts in the file's order, images in the order of the keys. The file is there when
/// all of it is. Throw strobe::Error, DataError for what cannot be read.
Extracted extract_text_features(Embedder& embedder, const BertTokenizer& tokenizer, const TextExtraction& options,
                                const OnProgress& on_progress);
Extracted extract_image_features(Embedder& embedder, const ImageExtraction& options, const OnSkip& on_skip,
                                 const OnProgress& on_progress);

}  // namespace strobe::clip
