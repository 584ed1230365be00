// strobe clip demo-data: the built-in data set of emoji, in the source format of Chinese-CLIP's data sets.
#include <cstdio>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "clip/demo/demo_data.h"

namespace strobe::cli {
namespace {

struct Arguments {
  clip::DemoDataOptions options;
  std::string first, last;  // hexadecimal
};

CLI::Validator code_point() {
  return CLI::Validator(
      [](std::string& text) {
        const bool is_hex = text.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
        return is_hex && !text.empty() && text.size() <= 6 ? "" : "expected a code point such as 1F43C, found " + text;
      },
      "CODE_POINT");
}

void run(clip::DemoDataOptions options, const std::string& first, const std::string& last) {
  const auto set = [](char32_t& point, const std::string& text) {
    if (!text.empty()) point = static_cast<char32_t>(std::stoul(text, nullptr, /*base=*/16));
  };
  set(options.first, first);
  set(options.last, last);
  for (const clip::DemoSplit& split : clip::write_demo_data(options)) {
    std::printf("%s: %ld images, %ld texts\n", split.name.c_str(), split.images, split.texts);
  }
  std::printf("Wrote %s; next: strobe clip build-lmdb\n", options.data.c_str());
}

}  // namespace

void add_clip_demo_data(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "demo-data", "Write the built-in data set: emoji with Chinese names, drawn from the system's font");
  const auto arguments = std::make_shared<Arguments>();
  clip::DemoDataOptions* options = &arguments->options;
  command
      ->add_option("--data-dir,--data_dir", options->data, "Where to write {train,valid,test}_{imgs.tsv,texts.jsonl}")
      ->type_name("DIR")
      ->required();
  command->add_option("--font", options->font, "Noto Color Emoji, or another font of colour bitmaps")
      ->type_name("FILE")
      ->capture_default_str();
  command->add_option("--annotations", options->annotations, "The Unicode CLDR's Chinese names and keywords")
      ->type_name("FILE")
      ->capture_default_str();
  command->add_option("--limit", options->limit, "Only the first so many of these emoji; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--first", arguments->first, "Emoji from this code point on, hexadecimal")->check(code_point());
  command->add_option("--last", arguments->last, "Emoji to this code point, hexadecimal")->check(code_point());
  command->callback([arguments] { run(arguments->options, arguments->first, arguments->last); });
}

}  // namespace strobe::cli
