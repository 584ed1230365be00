#include "nmt/prepare_input.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "nmt/dataset.h"
#include "nmt/demo_corpus.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDemoPairs = 25000;
constexpr std::array kParts{Part::kTrain, Part::kDev, Part::kTest};

void require(bool holds, const std::string& text) {
  if (!holds) throw Error("prepare: " + text);
}

bool is_given(const PrepareOptions& o) { return o.demo || !o.train.empty() || !o.input.empty() || !o.source.empty(); }

void validate_size(const char* name, const std::optional<double>& size) {
  if (!size) return;
  const bool is_count = *size >= 1.0 && *size == std::floor(*size);
  require(is_count || (*size > 0.0 && *size < 1.0), std::string(name) +
                                                        ": expected a number of pairs, or a share of them between 0 "
                                                        "and 1, found " +
                                                        std::to_string(*size));
}

int64_t count_of(const std::optional<double>& size, int64_t pairs, int64_t otherwise) {
  if (!size) return otherwise;
  const double count = *size < 1.0 ? *size * static_cast<double>(pairs) : *size;
  return std::max<int64_t>(std::llround(count), 1);
}

void add(SkippedLines& sum, const SkippedLines& part) {
  sum.no_tab += part.no_tab;
  sum.empty_side += part.empty_side;
  sum.invalid_utf8 += part.invalid_utf8;
  if (sum.first.empty()) sum.first = part.first;
}

PrepareInput read_three(std::vector<fs::path> files) {
  PrepareInput input;
  const std::array sets{&input.sets.train, &input.sets.dev, &input.sets.test};
  for (std::size_t i = 0; i < sets.size(); ++i) {
    Corpus corpus = read_pairs(files[i]);
    *sets[i] = std::move(corpus.pairs);
    add(input.skipped, corpus.skipped);
  }
  input.files = std::move(files);
  return input;
}

PrepareInput read_and_split(const PrepareOptions& options) {
  PrepareInput input;
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
  const auto pairs = static_cast<int64_t>(corpus.pairs.size());
  const HeldOut usual = usual_held_out(pairs);
  const HeldOut wanted{count_of(options.dev_size, pairs, usual.dev), count_of(options.test_size, pairs, usual.test)};
  input.is_tenth = usual.dev < HeldOut{}.dev && !(options.dev_size && options.test_size);
  input.sets = split_pairs(std::move(corpus.pairs), wanted, options.seed);
  return input;
}

}  // namespace

void validate(const PrepareOptions& o) {
  const bool three = !o.train.empty() || !o.dev.empty() || !o.test.empty();
  const bool parallel = !o.source.empty() || !o.target.empty();
  require(!three || !(o.train.empty() || o.dev.empty() || o.test.empty()),
          "expected train, dev and test together, found only some of them");
  require(!parallel || !(o.source.empty() || o.target.empty()),
          "expected a source and a target file together, found only one of them");
  require(three + parallel + !o.input.empty() + o.demo <= 1,
          "expected one of: train, dev and test; input; source and target; demo. Found several");
  validate_size("dev_size", o.dev_size);
  validate_size("test_size", o.test_size);
  validate(o.lengths);
  const bool filters = o.lengths.min > 1 || o.lengths.max > 0 || o.lengths.max_ratio > 0.0;
  require(is_given(o) || !filters,
          "lengths: pairs of the folder's own json/ stay as they are, expected no limits; train leaves out long ones");
  require(!o.joint_vocabulary || o.vocabularies_from.empty(),
          "joint_vocabulary: expected vocabularies that are fitted, found vocabularies_from");
}

PrepareInput read_input(const PrepareOptions& options) {
  if (!options.train.empty()) return read_three({options.train, options.dev, options.test});
  if (is_given(options)) return read_and_split(options);
  require(fs::exists(json_file(options.data, Part::kTrain)), "expected input files, or \"" +
                                                                 json_file(options.data, Part::kTrain).string() +
                                                                 "\" in the data folder, found neither");
  std::vector<fs::path> files;
  for (const Part part : kParts) files.push_back(json_file(options.data, part));
  PrepareInput input = read_three(std::move(files));
  input.in_place = true;
  return input;
}

void report_input(const PrepareInput& input, const std::function<void(const std::string&)>& log) {
  const auto& [train, dev, test] = input.sets;
  log("train " + std::to_string(train.size()) + " pairs, dev " + std::to_string(dev.size()) + ", test " +
      std::to_string(test.size()));
  if (input.is_tenth) {
    log("dev and test get a tenth of the pairs each: there are fewer than 10 x " + std::to_string(HeldOut{}.dev));
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

}  // namespace strobe::nmt
