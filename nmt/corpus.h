// Parallel text: reading it in the forms people have it, counting what cannot be used.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace strobe::nmt {

struct SentencePair {
  std::string source;  // UTF-8, no line breaks, not empty
  std::string target;
};

/// What a reader passed over, by reason, each with the first place it was seen ("data/x.tsv:17").
struct SkippedLines {
  int64_t no_tab = 0, empty_side = 0, invalid_utf8 = 0;
  std::string first;  // of any reason, with the reason; empty if nothing was skipped
  int64_t total() const { return no_tab + empty_side + invalid_utf8; }
};

struct Corpus {
  std::vector<SentencePair> pairs;
  SkippedLines skipped;
};

/// A TSV (source, tab, target; further columns ignored) or, where the name ends in .json, FlashAttentionNMT's list of
/// [source, target] pairs. Throws strobe::Error where the file is missing, unreadable, not JSON, or without one usable
/// pair.
Corpus read_pairs(const std::filesystem::path& file);

/// Two files with a sentence a line, the same number of lines.
Corpus read_parallel(const std::filesystem::path& source, const std::filesystem::path& target);

}  // namespace strobe::nmt
