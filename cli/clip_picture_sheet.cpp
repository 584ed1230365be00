// strobe clip picture-sheet: what make-topk found, as one picture to look at.
#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "clip/demo/picture_sheet.h"

namespace strobe::cli {
namespace {

void run(const clip::SheetOptions& options) {
  int64_t row = 0;
  clip::write_picture_sheet(options, [&](const std::string& query, const std::vector<std::string>& ids) {
    std::printf("row %ld: %s:", ++row, query.c_str());
    for (const std::string& id : ids) std::printf(" %s", id.c_str());
    std::printf("\n");
  });
  std::printf("Wrote %s\n", options.output.c_str());
}

}  // namespace

void add_clip_picture_sheet(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "picture-sheet", "Draw what make-topk found: a row of pictures for each query, the best on the left");
  const auto options = std::make_shared<clip::SheetOptions>();
  command->add_option("--predictions", options->predictions, "What make-topk wrote")->type_name("JSONL")->required();
  command->add_option("--image-data", options->images, "The LMDB folder of the images")->type_name("DIR")->required();
  command->add_option("--text-data", options->texts, "The queries, to name the rows by")->type_name("JSONL");
  command->add_option("--output", options->output, "The picture")->type_name("PNG")->required();
  command->add_option("--top-k", options->columns, "Pictures in a row")
      ->check(CLI::Range(1, 50))
      ->capture_default_str();
  command->add_option("--side", options->side, "Pixels of a picture")
      ->check(CLI::Range(16, 512))
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace strobe::cli
