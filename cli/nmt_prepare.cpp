// strobe nmt prepare: from sentence pairs to a data folder that train reads.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "cli/commands.h"
#include "cli/options.h"
#include "nmt/prepare.h"

namespace strobe::cli {
namespace {

/// What the command line says; what it leaves open depends on whether the corpus is the built-in one.
struct Arguments {
  nmt::PrepareOptions paths;
  std::optional<int64_t> vocabulary_size, source_size, target_size;
  std::string type = "bpe";
};

nmt::PrepareOptions options_of(const Arguments& arguments) {
  nmt::PrepareOptions options = arguments.paths;
  if (options.demo) {
    const nmt::PrepareOptions demo = nmt::demo_options();
    options.source_vocabulary = demo.source_vocabulary;
    options.target_vocabulary = demo.target_vocabulary;
  }
  const auto size = [&](const std::optional<int64_t>& own, int64_t otherwise) {
    return own.value_or(arguments.vocabulary_size.value_or(otherwise));
  };
  options.source_vocabulary.size = size(arguments.source_size, options.source_vocabulary.size);
  options.target_vocabulary.size = size(arguments.target_size, options.target_vocabulary.size);
  options.source_vocabulary.type = options.target_vocabulary.type = arguments.type;
  return options;
}

void run(const Arguments& arguments) {
  nmt::prepare(options_of(arguments), [](const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  });
}

}  // namespace

void add_nmt_prepare(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "prepare", "Turn sentence pairs into a data folder: split them, fit the vocabularies on the training text");
  auto arguments = std::make_shared<Arguments>();
  nmt::PrepareOptions& paths = arguments->paths;

  const auto pairs = [&](const char* name, std::filesystem::path& file, const char* what) {
    return command->add_option(name, file, what)->type_name("FILE")->group("Input");
  };
  CLI::Option* train = pairs("--train", paths.train, "Training pairs: TSV, or JSON where the name ends in .json");
  CLI::Option* dev = pairs("--dev", paths.dev, "Development pairs");
  CLI::Option* test = pairs("--test", paths.test, "Test pairs");
  CLI::Option* input = pairs("--input", paths.input, "All pairs, to be split here; TSV or JSON");
  CLI::Option* source = pairs("--src", paths.source, "Source sentences, one a line, to be split here with --tgt");
  CLI::Option* target = pairs("--tgt", paths.target, "Target sentences, one a line");
  CLI::Option* demo = command->add_flag("--demo", paths.demo, "The built-in English-Chinese corpus")->group("Input");
  train->needs(dev, test)->excludes(input, source, target, demo);
  dev->needs(train);
  test->needs(train);
  input->excludes(source, target, demo);
  source->needs(target)->excludes(demo);
  target->needs(source);
  command->footer("Without input the pairs in DIR/json/ are taken as they are and only the vocabularies are fitted.\n");

  command->add_option("--data", paths.data, "Where to write")->type_name("DIR")->capture_default_str();
  const CLI::Range sizes(int64_t{8}, int64_t{1000000});
  command->add_option("--vocab-size", arguments->vocabulary_size, "Pieces of each vocabulary [32000; 600 with --demo]")
      ->check(sizes);
  command->add_option("--src-vocab-size", arguments->source_size, "Pieces of the source vocabulary")->check(sizes);
  command->add_option("--tgt-vocab-size", arguments->target_size, "Pieces of the target vocabulary")->check(sizes);
  command->add_option("--vocab-type", arguments->type, "How pieces are found")
      ->check(one_of({"bpe", "unigram"}))
      ->capture_default_str();
  command->add_option("--seed", paths.seed, "Of the split and of the built-in corpus")->capture_default_str();
  command->callback([arguments] { run(*arguments); });
}

}  // namespace strobe::cli
