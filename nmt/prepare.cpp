#include "nmt/prepare.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "nmt/dataset.h"
#include "nmt/demo_corpus.h"
#include "nmt/split.h"
#include "nmt/staged_files.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

namespace fs = std::filesystem;
using Log = std::function<void(const std::string&)>;

constexpr int64_t kDemoPairs = 25000;
constexpr std::array kParts{Part::kTrain, Part::kDev, Part::kTest};

/// The three sets, what was passed over, and the files they came from.
struct Input {
  Split sets;
  SkippedLines skipped;
  std::vector<fs::path> files;
  bool was_split = false;
  bool in_place = false;  // the folder's own files: they stay as they are
};

void check(const PrepareOptions& options) {
  const bool three = !options.train.empty() || !options.dev.empty() || !options.test.empty();
  const bool parallel = !options.source.empty() || !options.target.empty();
  if (three && (options.train.empty() || options.dev.empty() || options.test.empty())) {
    throw Error("prepare: expected train, dev and test together, found only some of them");
  }
  if (parallel && (options.source.empty() || options.target.empty())) {
    throw Error("prepare: expected a source and a target file together, found only one of them");
  }
  if (three + parallel + !options.input.empty() + options.demo > 1) {
    throw Error("prepare: expected one of: train, dev and test; input; source and target; demo. Found several");
  }
  if (options.held_out < 1) {
    throw Error("prepare: held_out: expected at least 1, found " + std::to_string(options.held_out));
  }
}

void add(SkippedLines& sum, const SkippedLines& part) {
  sum.no_tab += part.no_tab;
  sum.empty_side += part.empty_side;
  sum.invalid_utf8 += part.invalid_utf8;
  if (sum.first.empty()) sum.first = part.first;
}

Input read_three(std::vector<fs::path> files) {
  Input input;
  const std::array sets{&input.sets.train, &input.sets.dev, &input.sets.test};
  for (std::size_t i = 0; i < sets.size(); ++i) {
    Corpus corpus = read_pairs(files[i]);
    *sets[i] = std::move(corpus.pairs);
    add(input.skipped, corpus.skipped);
  }
  input.files = std::move(files);
  return input;
}

Input read_and_split(const PrepareOptions& options) {
  Input input;
  Corpus corpus;
  if (options.demo) {
    corpus.pairs = demo_pairs(kDemoPairs, options.seed);
  } else if (!options.input.empty()) {
    corpus = read_pairs(options.input);
    input.files = {options.input};
  } else {
    corpus = read_parallel(options.source, options.target);
    input.files = {options.source, options.target};
  }
  input.skipped = corpus.skipped;
  input.was_split = true;
  input.sets = split_pairs(std::move(corpus.pairs), options.held_out, options.seed);
  return input;
}

Input read_input(const PrepareOptions& options) {
  if (!options.train.empty()) return read_three({options.train, options.dev, options.test});
  if (options.demo || !options.input.empty() || !options.source.empty()) return read_and_split(options);
  if (!fs::exists(json_file(options.data, Part::kTrain))) {
    throw Error("prepare: expected input files, or \"" + json_file(options.data, Part::kTrain).string() +
                "\" in the data folder, found neither");
  }
  std::vector<fs::path> files;
  for (const Part part : kParts) files.push_back(json_file(options.data, part));
  Input input = read_three(std::move(files));
  input.in_place = true;
  return input;
}

void report_input(const Input& input, int64_t held_out, const Log& log) {
  const auto& [train, dev, test] = input.sets;
  log("train " + std::to_string(train.size()) + " pairs, dev " + std::to_string(dev.size()) + ", test " +
      std::to_string(test.size()));
  if (input.was_split && static_cast<int64_t>(train.size() + dev.size() + test.size()) < 10 * held_out) {
    log("dev and test get a tenth of the pairs each: there are fewer than 10 x " + std::to_string(held_out));
  }
  const SkippedLines& skipped = input.skipped;
  if (skipped.total() > 0) {
    log("warning: skipped " + std::to_string(skipped.total()) + " lines: " + std::to_string(skipped.no_tab) +
        " without a tab, " + std::to_string(skipped.empty_side) + " with an empty side, " +
        std::to_string(skipped.invalid_utf8) + " not UTF-8; the first: " + skipped.first);
  }
  for (const auto& [name, set] : {std::pair("dev", &dev), std::pair("test", &test)}) {
    const int64_t shared = count_shared(*set, train);
    if (shared == 0) continue;
    log("warning: " + std::to_string(shared) + " of the " + name + " pairs share a sentence with the training pairs");
  }
}

Vocabulary fit(const std::vector<SentencePair>& pairs, std::string SentencePair::*side, const char* name,
               const VocabularyOptions& options, const Log& log) {
  std::vector<std::string_view> sentences;
  sentences.reserve(pairs.size());
  for (const SentencePair& pair : pairs) sentences.push_back(pair.*side);
  log(std::string("fitting the ") + name + " vocabulary: " + std::to_string(options.size) + " pieces, " + options.type);
  Vocabulary vocabulary = Vocabulary::train(sentences, options);
  if (vocabulary.size() < options.size) {
    log(std::string("warning: ") + name + " vocabulary: " + std::to_string(options.size) +
        " pieces asked for, the training text holds only " + std::to_string(vocabulary.size()));
  }
  return vocabulary;
}

/// The lengths of the training sentences in ids.
void report_lengths(const char* name, const Vocabulary& vocabulary, const std::vector<EncodedPair>& pairs,
                    std::vector<int64_t> EncodedPair::*side, const Log& log) {
  std::size_t sum = 0, longest = 0;
  for (const EncodedPair& pair : pairs) {
    sum += (pair.*side).size();
    longest = std::max(longest, (pair.*side).size());
  }
  const std::string mean = std::to_string(static_cast<double>(sum) / static_cast<double>(pairs.size()));
  log(std::string(name) + " vocabulary: " + std::to_string(vocabulary.size()) + " pieces; a training sentence has " +
      mean.substr(0, mean.find('.') + 2) + " ids, the longest " + std::to_string(longest));
}

void write_pairs(std::ostream& stream, const std::vector<SentencePair>& pairs) {
  const char* separator = "[";
  for (const SentencePair& pair : pairs) {
    stream << separator << nlohmann::json::array({pair.source, pair.target}).dump();
    separator = ",\n";
  }
  stream << "]\n";
}

std::string fnv1a(const fs::path& file) {
  uint64_t hash = 0xCBF29CE484222325u;
  std::ifstream stream(file, std::ios::binary);
  std::vector<char> block(1 << 16);
  while (stream.read(block.data(), static_cast<std::streamsize>(block.size())), stream.gcount() > 0) {
    for (std::streamsize i = 0; i < stream.gcount(); ++i) {
      hash = (hash ^ static_cast<unsigned char>(block[static_cast<std::size_t>(i)])) * 0x100000001B3u;
    }
  }
  std::array<char, 17> hex{};
  std::snprintf(hex.data(), hex.size(), "%016llx", static_cast<unsigned long long>(hash));
  return hex.data();
}

nlohmann::ordered_json description(const VocabularyOptions& options, int64_t pieces) {
  return {{"type", options.type},
          {"pieces", pieces},
          {"pieces_asked_for", options.size},
          {"character_coverage", options.character_coverage},
          {"normalization", options.normalization}};
}

nlohmann::ordered_json description(const PrepareOptions& options, const Input& input, const PrepareSummary& summary) {
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  for (const fs::path& file : input.files) {
    files.push_back({{"file", file.string()}, {"bytes", fs::file_size(file)}, {"fnv1a", fnv1a(file)}});
  }
  nlohmann::ordered_json record;
  record["inputs"] = files;
  record["built_in_corpus"] = options.demo;
  record["seed"] = options.seed;
  record["pairs"] = {{"train", summary.train}, {"dev", summary.dev}, {"test", summary.test}};
  record["skipped"] = {{"no_tab", summary.skipped.no_tab},
                       {"empty_side", summary.skipped.empty_side},
                       {"invalid_utf8", summary.skipped.invalid_utf8},
                       {"first", summary.skipped.first}};
  record["source_vocabulary"] = description(options.source_vocabulary, summary.source_pieces);
  record["target_vocabulary"] = description(options.target_vocabulary, summary.target_pieces);
  return record;
}

}  // namespace

PrepareOptions demo_options() {
  PrepareOptions options;
  options.demo = true;
  options.source_vocabulary = {600, "bpe", 1.0, "nmt_nfkc"};
  options.target_vocabulary = {600, "bpe", 1.0, "identity"};
  return options;
}

PrepareSummary prepare(const PrepareOptions& options, const Log& log) {
  check(options);
  StagedFiles::require_writable(options.data);
  const Input input = read_input(options);
  report_input(input, options.held_out, log);

  const std::vector<SentencePair>& train = input.sets.train;
  const Vocabularies vocabularies{fit(train, &SentencePair::source, "source", options.source_vocabulary, log),
                                  fit(train, &SentencePair::target, "target", options.target_vocabulary, log)};
  const std::vector<EncodedPair> encoded = encode_pairs(train, vocabularies);
  report_lengths("source", vocabularies.source, encoded, &EncodedPair::source, log);
  report_lengths("target", vocabularies.target, encoded, &EncodedPair::target, log);

  const auto& [_, dev, test] = input.sets;
  const PrepareSummary summary{static_cast<int64_t>(train.size()), static_cast<int64_t>(dev.size()),
                               static_cast<int64_t>(test.size()),  input.skipped,
                               vocabularies.source.size(),         vocabularies.target.size()};
  StagedFiles files(options.data);
  if (!input.in_place) {
    files.write("json/train.json", [&](std::ostream& stream) { write_pairs(stream, train); });
    files.write("json/dev.json", [&](std::ostream& stream) { write_pairs(stream, dev); });
    files.write("json/test.json", [&](std::ostream& stream) { write_pairs(stream, test); });
  }
  files.write("tokenizer/source.model", [&](std::ostream& stream) { stream << vocabularies.source.bytes(); });
  files.write("tokenizer/target.model", [&](std::ostream& stream) { stream << vocabularies.target.bytes(); });
  files.write("prepare.json", [&](std::ostream& stream) {
    stream << description(options, input, summary).dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
           << "\n";
  });
  files.commit();
  log("written to " + options.data.string());
  return summary;
}

}  // namespace strobe::nmt
