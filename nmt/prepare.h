// From sentence pairs to a data folder that training reads (nmt/dataset.h lists its files): reading, splitting, fitting
// the vocabularies on the training text, leaving out training pairs by their lengths. prepare.json
// (nmt/prepare_record.h) records where all of it came from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "nmt/corpus.h"
#include "nmt/length_filter.h"
#include "nmt/vocabulary.h"

namespace strobe::nmt {

/// One of: train, dev and test; input; source and target; demo; or none of them, which takes the folder's own
/// json/*.json as they are and only fits vocabularies. input, source and target, and demo are split (nmt/split.h).
struct PrepareOptions {
  std::filesystem::path train, dev, test;  // TSV or JSON
  std::filesystem::path input;             // TSV or JSON
  std::filesystem::path source, target;    // a sentence a line
  bool demo = false;                       // the built-in corpus (nmt/demo_corpus.h)

  std::filesystem::path data = "data";  // made where missing
  VocabularyOptions source_vocabulary;
  /// The target keeps its characters: normalisation by NFKC would rewrite Chinese punctuation.
  VocabularyOptions target_vocabulary{32000, "bpe", 0.9995, "identity"};
  /// One model for both sides, fitted on the training text of both with the options of target_vocabulary.
  bool joint_vocabulary = false;
  std::filesystem::path vocabularies_from;  // a data folder or a checkpoint whose vocabularies are taken, none fitted

  /// Where pairs are split here: so many pairs, or that share of all where it is below 1. Null: 1000, or a tenth of a
  /// corpus with fewer than 10,000 pairs.
  std::optional<double> dev_size, test_size;
  LengthLimits lengths;  // of training pairs; the vocabularies are fitted on all of them
  uint64_t seed = 1;     // of the split
};

/// Small vocabularies with every character in them, for the built-in corpus.
PrepareOptions demo_options();

struct PrepareSummary {
  int64_t train = 0, dev = 0, test = 0;  // pairs
  SkippedLines skipped;                  // over all inputs
  LeftOut left_out;                      // of the training pairs
  int64_t source_pieces = 0, target_pieces = 0;
};

/// Writes all files or, when it throws strobe::Error, none. `log` gets a line for each thing done, and warnings.
PrepareSummary prepare(const PrepareOptions& options, const std::function<void(const std::string&)>& log);

}  // namespace strobe::nmt
