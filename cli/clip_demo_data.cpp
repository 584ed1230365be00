// strobe clip demo-data: the built-in data set of emoji, in the source format of Chinese-CLIP's data sets.
#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "clip/demo/demo_data.h"

namespace strobe::cli {
namespace {

void run(const clip::DemoDataOptions& options) {
  for (const clip::DemoSplit& split : clip::write_demo_data(options)) {
    std::printf("%s: %ld images, %ld texts\n", split.name.c_str(), split.images, split.texts);
  }
  std::printf("Wrote %s; next: strobe clip build-lmdb\n", options.data.c_str());
}

}  // namespace

void add_clip_demo_data(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "demo-data", "Write the built-in data set: emoji with Chinese names, drawn from the system's font");
  const auto options = std::make_shared<clip::DemoDataOptions>();
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
  command->add_option("--limit", options->limit, "Only the first so many emoji; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace strobe::cli
