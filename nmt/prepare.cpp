#include "nmt/prepare.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "nmt/checkpoint.h"
#include "nmt/dataset.h"
#include "nmt/prepare_input.h"
#include "nmt/prepare_record.h"
#include "nmt/staged_files.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

namespace fs = std::filesystem;
using Log = std::function<void(const std::string&)>;
using Sides = std::vector<std::string SentencePair::*>;

Vocabulary fit(const std::vector<SentencePair>& pairs, const Sides& sides, const char* name,
               const VocabularyOptions& options, const Log& log) {
  std::vector<std::string_view> sentences;
  sentences.reserve(sides.size() * pairs.size());
  for (const auto side : sides) {
    for (const SentencePair& pair : pairs) sentences.push_back(pair.*side);
  }
  log(std::string("fitting the ") + name + " vocabulary: " + std::to_string(options.size) + " pieces, " + options.type);
  const auto too_long = std::count_if(sentences.begin(), sentences.end(),
                                      [](std::string_view text) { return text.size() > kMostBytesToFitOn; });
  if (too_long > 0 && options.type != "word") {
    log(std::string("warning: ") + name + " vocabulary: not fitted on " + std::to_string(too_long) +
        " sentences of more than " + std::to_string(kMostBytesToFitOn) + " bytes");
  }
  Vocabulary vocabulary = Vocabulary::train(sentences, options);
  if (vocabulary.size() < options.size) {
    log(std::string("warning: ") + name + " vocabulary: " + std::to_string(options.size) +
        " pieces asked for, the training text holds only " + std::to_string(vocabulary.size()));
  }
  return vocabulary;
}

Vocabularies make_vocabularies(const PrepareOptions& options, const std::vector<SentencePair>& train, const Log& log) {
  if (!options.vocabularies_from.empty()) {
    log("taking the vocabularies of " + options.vocabularies_from.string());
    return fs::is_directory(options.vocabularies_from) ? load_vocabularies(options.vocabularies_from)
                                                       : checkpoint_vocabularies(options.vocabularies_from);
  }
  if (options.joint_vocabulary) {
    const Sides both = {&SentencePair::source, &SentencePair::target};
    const Vocabulary joint = fit(train, both, "joint", options.target_vocabulary, log);
    return {joint, joint};
  }
  return {fit(train, {&SentencePair::source}, "source", options.source_vocabulary, log),
          fit(train, {&SentencePair::target}, "target", options.target_vocabulary, log)};
}

/// The lengths of the training sentences in ids, and how much of them the vocabulary does not know.
void report_lengths(const char* name, const Vocabulary& vocabulary, const std::vector<EncodedPair>& pairs,
                    std::vector<int64_t> EncodedPair::*side, const Log& log) {
  std::size_t sum = 0, longest = 0, unknown = 0;
  for (const EncodedPair& pair : pairs) {
    sum += (pair.*side).size();
    longest = std::max(longest, (pair.*side).size());
    unknown += std::count((pair.*side).begin(), (pair.*side).end(), kUnkId);
  }
  const auto decimals = [](double value, std::size_t digits) {
    const std::string text = std::to_string(value);
    return text.substr(0, text.find('.') + 1 + digits);
  };
  std::string line = std::string(name) + " vocabulary: " + std::to_string(vocabulary.size()) +
                     " pieces; a training sentence has " +
                     decimals(static_cast<double>(sum) / static_cast<double>(pairs.size()), 1) + " ids, the longest " +
                     std::to_string(longest);
  if (unknown > 0) {
    line += "; unknown: " + decimals(100.0 * static_cast<double>(unknown) / static_cast<double>(sum), 3) + " %";
  }
  log(line);
}

/// Leaves training pairs out by the limits, in `input` and in `encoded`.
LeftOut filter(const PrepareOptions& options, PrepareInput& input, std::vector<EncodedPair>& encoded, const Log& log) {
  if (input.in_place) return {};
  const LeftOut left_out = filter_lengths(input.sets.train, encoded, options.lengths);
  if (left_out.total() > 0) log(left_out.text());
  if (encoded.empty()) throw Error("prepare: lengths: expected to keep training pairs, " + left_out.text());
  return left_out;
}

void write_pairs(std::ostream& stream, const std::vector<SentencePair>& pairs) {
  const char* separator = "[";
  for (const SentencePair& pair : pairs) {
    stream << separator << nlohmann::json::array({pair.source, pair.target}).dump();
    separator = ",\n";
  }
  stream << "]\n";
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
  validate(options);
  StagedFiles::require_writable(options.data);
  PrepareInput input = read_input(options);
  report_input(input, log);

  const auto& [train, dev, test] = input.sets;
  const Vocabularies vocabularies = make_vocabularies(options, train, log);
  std::vector<EncodedPair> encoded = encode_pairs(train, vocabularies);
  PrepareSummary summary;
  summary.left_out = filter(options, input, encoded, log);
  report_lengths("source", vocabularies.source, encoded, &EncodedPair::source, log);
  report_lengths("target", vocabularies.target, encoded, &EncodedPair::target, log);
  summary.train = static_cast<int64_t>(train.size());
  summary.dev = static_cast<int64_t>(dev.size());
  summary.test = static_cast<int64_t>(test.size());
  summary.skipped = input.skipped;
  summary.source_pieces = vocabularies.source.size();
  summary.target_pieces = vocabularies.target.size();

  StagedFiles files(options.data);
  if (!input.in_place) {
    for (const auto& [name, set] : {std::pair("train", &train), std::pair("dev", &dev), std::pair("test", &test)}) {
      files.write(std::string("json/") + name + ".json", [&](std::ostream& stream) { write_pairs(stream, *set); });
    }
  }
  files.write("tokenizer/source.model", [&](std::ostream& stream) { stream << vocabularies.source.bytes(); });
  files.write("tokenizer/target.model", [&](std::ostream& stream) { stream << vocabularies.target.bytes(); });
  files.write("prepare.json", [&](std::ostream& stream) {
    stream << prepare_record(options, input, summary).dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
           << "\n";
  });
  files.commit();
  log("written to " + options.data.string());
  return summary;
}

}  // namespace strobe::nmt
