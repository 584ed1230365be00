// strobe nmt prepare: from sentence pairs to a data folder that train reads.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/options.h"
#include "nmt/prepare.h"

namespace strobe::cli {
namespace {

/// What the command line says; what it leaves open depends on whether the corpus is the built-in one.
struct Arguments {
  nmt::PrepareOptions options;
  std::optional<int64_t> vocabulary_size, source_size, target_size;
  std::optional<double> coverage, source_coverage, target_coverage;
  std::string type = "bpe";
};

nmt::PrepareOptions options_of(const Arguments& arguments) {
  nmt::PrepareOptions options = arguments.options;
  if (options.demo) {
    const nmt::PrepareOptions demo = nmt::demo_options();
    options.source_vocabulary = demo.source_vocabulary;
    options.target_vocabulary = demo.target_vocabulary;
  }
  const auto set = [&](nmt::VocabularyOptions& side, const std::optional<int64_t>& size,
                       const std::optional<double>& coverage) {
    side.type = arguments.type;
    if (side.type == "word") {
      side.character_coverage = 1.0;
      side.normalization = "identity";
    }
    side.size = size.value_or(arguments.vocabulary_size.value_or(side.size));
    side.character_coverage = coverage.value_or(arguments.coverage.value_or(side.character_coverage));
  };
  set(options.source_vocabulary, arguments.source_size, arguments.source_coverage);
  set(options.target_vocabulary, arguments.target_size, arguments.target_coverage);
  return options;
}

void run(const Arguments& arguments) {
  nmt::prepare(options_of(arguments), [](const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  });
}

void add_input(CLI::App& command, nmt::PrepareOptions& options) {
  const auto pairs = [&](const char* name, std::filesystem::path& file, const char* what) {
    return command.add_option(name, file, what)->type_name("FILE")->group("Input");
  };
  CLI::Option* train = pairs("--train", options.train, "Training pairs: TSV, or JSON where the name ends in .json");
  CLI::Option* dev = pairs("--dev", options.dev, "Development pairs");
  CLI::Option* test = pairs("--test", options.test, "Test pairs");
  CLI::Option* input = pairs("--input", options.input, "All pairs, to be split here; TSV or JSON");
  CLI::Option* source = pairs("--src", options.source, "Source sentences, one a line, to be split here with --tgt");
  CLI::Option* target = pairs("--tgt", options.target, "Target sentences, one a line");
  CLI::Option* demo = command.add_flag("--demo", options.demo, "The built-in English-Chinese corpus")->group("Input");
  train->needs(dev, test)->excludes(input, source, target, demo);
  dev->needs(train);
  test->needs(train);
  input->excludes(source, target, demo);
  source->needs(target)->excludes(demo);
  target->needs(source);
  command.footer("Without input the pairs in DIR/json/ are taken as they are and only the vocabularies are fitted.\n");

  const auto size = [&](const char* name, std::optional<double>& value, const char* what) {
    command.add_option(name, value, what)->check(CLI::PositiveNumber)->excludes(train)->group("Input");
  };
  size("--dev-size", options.dev_size,
       "Pairs to split off for development, below 1: their share [1000, or a tenth of fewer than 10000 pairs]");
  size("--test-size", options.test_size, "Pairs to split off for the test [as --dev-size]");
  command.add_option("--seed", options.seed, "Of the split and of the built-in corpus")
      ->capture_default_str()
      ->group("Input");
}

void add_lengths(CLI::App& command, nmt::LengthLimits& lengths) {
  const auto limit = [&](const char* name, auto& value, const char* what) {
    command.add_option(name, value, what)
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str()
        ->group("Training pairs to leave out");
  };
  limit("--min-length", lengths.min, "Pairs with fewer pieces on a side");
  limit("--max-length", lengths.max, "Pairs with more pieces on a side; 0: no limit");
  limit("--max-ratio", lengths.max_ratio, "Pairs with so many times more pieces on one side; 0: no limit");
}

void add_vocabularies(CLI::App& command, Arguments& a) {
  constexpr char kGroup[] = "Vocabularies";
  std::vector<CLI::Option*> fitting, by_side;
  const auto size = [&](const char* name, std::optional<int64_t>& value, const char* what) {
    return fitting.emplace_back(
        command.add_option(name, value, what)->check(CLI::Range(int64_t{8}, int64_t{1000000}))->group(kGroup));
  };
  const auto coverage = [&](const char* name, std::optional<double>& value, const char* what) {
    return fitting.emplace_back(command.add_option(name, value, what)->check(CLI::Range(0.98, 1.0))->group(kGroup));
  };
  size("--vocab-size", a.vocabulary_size, "Pieces of each vocabulary [32000; 600 with --demo]");
  by_side.push_back(size("--src-vocab-size", a.source_size, "Pieces of the source vocabulary"));
  by_side.push_back(size("--tgt-vocab-size", a.target_size, "Pieces of the target vocabulary"));
  fitting.push_back(command
                        .add_option("--vocab-type", a.type,
                                    "How pieces are found; word: they stand between spaces, text is taken as it is")
                        ->check(one_of({"bpe", "unigram", "word"}))
                        ->capture_default_str()
                        ->group(kGroup));
  coverage("--character-coverage", a.coverage,
           "Share of the characters that get a piece [source 1, target 0.9995; 1 with --demo and for words]");
  by_side.push_back(coverage("--src-character-coverage", a.source_coverage, "Of the source alone"));
  by_side.push_back(coverage("--tgt-character-coverage", a.target_coverage, "Of the target alone"));
  CLI::Option* joint = command
                           .add_flag("--joint-vocabulary", a.options.joint_vocabulary,
                                     "One vocabulary for both sides, fitted as the target's on the text of both")
                           ->group(kGroup);
  for (CLI::Option* option : by_side) joint->excludes(option);
  fitting.push_back(joint);
  CLI::Option* from = command
                          .add_option("--vocab-from", a.options.vocabularies_from,
                                      "Take the vocabularies of a data folder or of a checkpoint, fit none")
                          ->type_name("PATH")
                          ->group(kGroup);
  for (CLI::Option* option : fitting) from->excludes(option);
}

}  // namespace

void add_nmt_prepare(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "prepare", "Turn sentence pairs into a data folder: split them, fit the vocabularies on the training text");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--data", arguments->options.data, "Where to write")->type_name("DIR")->capture_default_str();
  add_input(*command, arguments->options);
  add_vocabularies(*command, *arguments);
  add_lengths(*command, arguments->options.lengths);
  command->callback([arguments] { run(*arguments); });
}

}  // namespace strobe::cli
