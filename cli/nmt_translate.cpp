#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/nmt_options.h"
#include "cli/text_input.h"
#include "nmt/translate.h"

namespace strobe::cli {
namespace {

struct Arguments {
  std::filesystem::path model = "experiment/model.pth";
  std::filesystem::path input;
  std::vector<std::string> texts;
  std::string attn_type;
  int64_t n_best = 0;
  nmt::TranslateOptions translate;
  RunOptions run;
};

// So many batches are read before the first is translated: enough to put sentences of one length together.
constexpr int64_t kBatchesAtOnce = 16;

class Translator {
 public:
  Translator(nmt::TranslationModel model, const nmt::TranslateOptions& options, bool n_best)
      : model_(std::move(model)), options_(options), n_best_(n_best) {}

  void print(const std::vector<std::string>& lines) {
    const nmt::Translations translations = nmt::translate(model_, lines, options_);
    for (std::size_t i = 0; i < translations.lines.size(); ++i) {
      if (n_best_) {
        print_list(lines_ + i, translations.lines[i]);
      } else {
        std::cout << translations.lines[i].front().text << '\n';
      }
    }
    std::cout.flush();
    if (first_invalid_ == 0 && !translations.invalid_utf8.empty()) {
      first_invalid_ = lines_ + translations.invalid_utf8.front() + 1;
    }
    invalid_ += translations.invalid_utf8.size();
    lines_ += lines.size();
  }

  void report_skipped() const {
    if (invalid_ == 0) return;
    std::fprintf(stderr, "strobe nmt translate: %zu of %zu lines skipped for invalid UTF-8, the first is line %zu\n",
                 invalid_, lines_, first_invalid_);
  }

 private:
  /// The n-best lists of Moses and Marian: line (from 0) ||| translation ||| F0= log-probability ||| score.
  static void print_list(std::size_t line, const std::vector<nmt::Translation>& translations) {
    for (const nmt::Translation& translation : translations) {
      std::cout << fmt::format("{} ||| {} ||| F0= {:.6f} ||| {:.6f}\n", line, translation.text,
                               translation.log_probability, translation.score);
    }
  }

  nmt::TranslationModel model_;
  nmt::TranslateOptions options_;
  bool n_best_;
  std::size_t lines_ = 0, invalid_ = 0, first_invalid_ = 0;  // lines count from 1
};

void run(const Arguments& arguments) {
  const at::Device device = arguments.run.start();
  nmt::TranslateOptions options = arguments.translate;
  if (arguments.n_best > 0) options.search.n_best = arguments.n_best;
  nmt::validate(options.search);
  options.precision = arguments.run.precision_on(device);
  Translator translator(nmt::load_translation_model(arguments.model, device, arguments.attn_type), options,
                        arguments.n_best > 0);
  if (!arguments.texts.empty()) {
    translator.print(arguments.texts);
  } else {
    const int64_t count = kBatchesAtOnce * options.batch.sentences;
    TextInput input(arguments.input);
    for (auto lines = input.read(count); !lines.empty(); lines = input.read(count)) translator.print(lines);
  }
  translator.report_skipped();
}

}  // namespace

void add_nmt_translate(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("translate", "Translate lines of standard input, --input or --text");
  const auto a = std::make_shared<Arguments>();
  command->add_option("--model", a->model, "a checkpoint that `nmt train` wrote")->capture_default_str();
  CLI::Option* input = command->add_option("--input", a->input, "a file to translate, instead of standard input");
  command->add_option("--text", a->texts, "a sentence to translate, instead of standard input; may be repeated")
      ->expected(1)
      ->take_all()
      ->excludes(input);
  command
      ->add_option("--n-best", a->n_best,
                   "print up to so many translations of each line, at most --beam, as "
                   "`line ||| translation ||| F0= log-probability ||| score`, lines from 0; 0: print the best alone")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_translate_options(*command, a->attn_type, a->translate, a->run);
  command->callback([a] { run(*a); });
}

}  // namespace strobe::cli
