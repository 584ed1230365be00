// strobe bench clip
#include <cstdio>
#include <memory>
#include <optional>

#include "bench/clip.h"
#include "bench/clip_report.h"
#include "bench/report.h"
#include "cli/commands.h"
#include "cli/launcher.h"
#include "cli/nmt_options.h"
#include "cli/options.h"
#include "ops/attn_type.h"

namespace strobe::cli {
namespace {

struct Arguments {
  bench::ClipBenchOptions bench;
  RunOptions run;
  ProcessOptions processes;
  std::vector<std::string> attn_types;
  std::string json;
};

std::vector<std::string> size_names() {
  std::vector<std::string> names;
  for (const bench::ClipSize& size : bench::clip_sizes()) names.push_back(size.name);
  return names;
}

void print(const bench::ClipBenchOptions& options, const std::string& text) {
  if (!options.ranks->is_root()) return;
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

void measure(const bench::ClipBenchOptions& options, const std::string& file, const std::string& command) {
  std::optional<bench::JsonFile> json;
  if (!file.empty() && options.ranks->is_root()) json.emplace(file);
  print(options, bench::table_header(options));
  std::vector<bench::ClipRow> all, of_size;
  const auto print_size = [&] {
    print(options, bench::table(of_size));
    of_size.clear();
  };
  const auto versions = bench::bench_clip(options, [&](const bench::ClipRow& row) {
    if (!of_size.empty() && of_size.back().size != row.size) print_size();
    of_size.push_back(row);
    all.push_back(row);
    // What has been measured is kept, whatever comes later.
    if (json) json->write(bench::to_json(all, {}, options, command));
  });
  print_size();
  if (json) json->write(bench::to_json(all, versions, options, command));
}

int run(Arguments a, const std::string& command) {
  if (const std::optional<int> status = a.processes.launch()) return *status;
  const train::World world = train::world_from_environment();
  bench::ClipBenchOptions& options = a.bench;
  options.device = a.run.start(world);
  const bool chooses = a.run.precision != "auto" || options.device.is_cpu();
  // As the published table: fp16.
  options.settings.precision = chooses ? a.run.precision_on(options.device) : train::Precision::kFp16;
  if (!a.attn_types.empty()) options.attn_types = a.attn_types;
  return train::run_in_world(world, options.device, [&](const std::shared_ptr<train::Communicator>& ranks) {
    options.ranks = ranks;
    measure(options, a.json, command);
    return 0;
  });
}

}  // namespace

void add_bench_clip(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "clip", "A training step of each size of Chinese-CLIP: our types beside cn_clip and transformers");
  const auto a = std::make_shared<Arguments>();
  app->add_option("--size", a->bench.sizes,
                  "Of the published table, or tiny, for a CPU; the five of the table without it")
      ->check(one_of(size_names()))
      ->delimiter(',');
  app->add_option("--attn-type,--attn_type", a->attn_types, "Ours to measure; dotscale and imp_flash_attn without it")
      ->check(one_of({ops::kAttnTypeNames.begin(), ops::kAttnTypeNames.end()}))
      ->delimiter(',');
  app->add_option("--batch-size", a->bench.batch, "Of a GPU; the published table's without it")
      ->check(CLI::PositiveNumber);
  app->add_option("--repetitions", a->bench.repetitions, "Measurements")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--steps", a->bench.steps, "Training steps of each measurement")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_flag("--profile", a->bench.profile, "Also say where the time of our steps goes");
  app->add_option("--peers", a->bench.peers, "Of --peer-python; cn_clip and transformers without it")
      ->check(one_of(bench::peer_names()))
      ->delimiter(',');
  app->add_option("--peer-python", a->bench.peer_python,
                  "A Python with torch, cn_clip and transformers, which make the same step, for comparison");
  a->run.add_to(*app);
  app->add_option("--gpus,--nproc", a->processes.processes,
                  "Processes that train together, one a GPU of this machine; with several, one is measured alone too")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app->add_option("--json", a->json, "Writes the rows to this file");
  app->callback([app, a] {
    if (const int status = run(*a, command_line(*app)); status != 0) throw CLI::RuntimeError(status);
  });
}

}  // namespace strobe::cli
