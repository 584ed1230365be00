#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include "cli/commands.h"
#include "nmt/average.h"
#include "train/checkpoint.h"

namespace strobe::cli {
namespace {

struct Arguments {
  std::vector<std::filesystem::path> checkpoints;
  std::filesystem::path folder = "experiment", out;
  int64_t last = 0;
};

void run(const Arguments& a) {
  const std::vector<std::filesystem::path> files =
      a.last > 0 ? nmt::newest_checkpoints(a.folder, a.last) : a.checkpoints;
  if (files.empty()) throw CLI::RequiredError("CHECKPOINT... or --last");
  train::save_checkpoint(a.out, nmt::average_checkpoints(files));
  for (const std::filesystem::path& file : files) std::printf("%s\n", file.string().c_str());
  std::printf("mean of %zu checkpoints written to %s\n", files.size(), a.out.string().c_str());
}

}  // namespace

void add_nmt_average(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("average", "Write the mean of several checkpoints of one run as a model");
  const auto a = std::make_shared<Arguments>();
  CLI::Option* files = command->add_option("CHECKPOINT", a->checkpoints, "the checkpoints to average");
  command->add_option("--last", a->last, "instead: the newest so many checkpoint-*.pt of --folder")
      ->check(CLI::PositiveNumber)
      ->excludes(files);
  command->add_option("--folder", a->folder, "the run's folder, with --last")->capture_default_str();
  command->add_option("--out", a->out, "where the model goes")->required();
  command->callback([a] { run(*a); });
}

}  // namespace strobe::cli
