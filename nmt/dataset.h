// A prepared data folder, read and encoded. Its files:
//   json/train.json, json/dev.json, json/test.json   lists of [source, target], the layout of FlashAttentionNMT
//   tokenizer/source.model, tokenizer/target.model   SentencePiece models with ids pad 0, unk 1, bos 2, eos 3
//   prepare.json                                     how the folder came about (nmt/prepare.h); for people, not read
//   here
// A folder of FlashAttentionNMT is taken as it is: where source.model and target.model are missing, eng.model and
// chn.model stand for them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nmt/batching.h"
#include "nmt/corpus.h"
#include "nmt/length_filter.h"
#include "nmt/vocabulary.h"

namespace strobe::nmt {

enum class Part { kTrain, kDev, kTest };

std::filesystem::path json_file(const std::filesystem::path& data, Part part);

struct Vocabularies {
  Vocabulary source, target;
};

/// Throws strobe::Error that says to run `strobe nmt prepare` where the folder has none.
Vocabularies load_vocabularies(const std::filesystem::path& data);

/// Sentence pairs as text and as ids; texts[i] belongs to pairs[i].
struct Dataset {
  std::vector<SentencePair> texts;
  std::vector<EncodedPair> pairs;  // bos ... eos on both sides
  SkippedLines skipped;            // by the reader
  LeftOut left_out;                // for their lengths
};

/// Reads and encodes one part, on all processors. Without limits all pairs stay, empty ones too. Throws strobe::Error
/// where the file is missing or no pair is left.
Dataset load_dataset(const std::filesystem::path& data, Part part, const Vocabularies& vocabularies,
                     const std::optional<LengthLimits>& limits = std::nullopt);

/// bos ... eos.
std::vector<int64_t> encode_sentence(const Vocabulary& vocabulary, std::string_view text);
std::vector<EncodedPair> encode_pairs(const std::vector<SentencePair>& texts, const Vocabularies& vocabularies);

}  // namespace strobe::nmt
