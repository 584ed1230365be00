#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/nmt_options.h"
#include "nmt/translate.h"

namespace strobe::cli {
namespace {

struct Arguments {
  std::filesystem::path model = "experiment/model.pth";
  std::vector<std::string> texts;
  std::string attn_type;
  nmt::TranslateOptions translate;
  RunOptions run;
};

// So many batches are read before the first is translated: enough to put sentences of one length together.
constexpr int64_t kBatchesAtOnce = 16;

/// Up to `count` lines without their ends; none at the end of the input.
std::vector<std::string> read_lines(std::istream& in, int64_t count) {
  std::vector<std::string> lines;
  for (std::string line; static_cast<int64_t>(lines.size()) < count && std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(line);
  }
  return lines;
}

class Translator {
 public:
  Translator(nmt::TranslationModel model, const nmt::TranslateOptions& options)
      : model_(std::move(model)), options_(options) {}

  void print(const std::vector<std::string>& lines) {
    const nmt::Translations translations = nmt::translate(model_, lines, options_);
    for (const std::string& line : translations.lines) std::cout << line << '\n';
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
  nmt::TranslationModel model_;
  nmt::TranslateOptions options_;
  std::size_t lines_ = 0, invalid_ = 0, first_invalid_ = 0;  // lines count from 1
};

void run(const Arguments& arguments) {
  const at::Device device = arguments.run.start();
  nmt::TranslateOptions options = arguments.translate;
  options.precision = arguments.run.precision_on(device);
  Translator translator(nmt::load_translation_model(arguments.model, device, arguments.attn_type), options);
  if (!arguments.texts.empty()) {
    translator.print(arguments.texts);
  } else {
    const int64_t count = kBatchesAtOnce * options.batch.sentences;
    for (auto lines = read_lines(std::cin, count); !lines.empty(); lines = read_lines(std::cin, count)) {
      translator.print(lines);
    }
  }
  translator.report_skipped();
}

}  // namespace

void add_nmt_translate(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("translate", "Translate lines of standard input, or --text");
  const auto a = std::make_shared<Arguments>();
  command->add_option("--model", a->model, "a checkpoint that `nmt train` wrote")->capture_default_str();
  command->add_option("--text", a->texts, "a sentence to translate, instead of standard input; may be repeated")
      ->expected(1)
      ->take_all();
  add_translate_options(*command, a->attn_type, a->translate, a->run);
  command->callback([a] { run(*a); });
}

}  // namespace strobe::cli
