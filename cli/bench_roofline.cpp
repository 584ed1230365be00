// strobe bench roofline
#include <ATen/Parallel.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "bench/report.h"
#include "bench/roofline.h"
#include "bench/roofline_report.h"
#include "cli/bench_device.h"
#include "cli/commands.h"
#include "cli/options.h"

namespace strobe::cli {
namespace {

struct Arguments {
  std::string device, json;
  int64_t threads = 0;
};

void run(const Arguments& a, const std::string& command) {
  const at::Device device = bench_device(a.device);
  if (a.threads > 0) at::set_num_threads(static_cast<int>(a.threads));
  std::optional<bench::JsonFile> json;
  if (!a.json.empty()) json.emplace(a.json);
  std::fputs(bench::machine_line(device).c_str(), stdout);
  std::fflush(stdout);
  const std::vector<bench::RooflineRow> rows = bench::bench_roofline(bench::roofline_options(device));
  std::fputs(bench::table(rows).c_str(), stdout);
  if (json) json->write(bench::to_json(rows, device, command));
}

}  // namespace

void add_bench_roofline(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("roofline", "What the device can do at best: memory, matrix products");
  const auto a = std::make_shared<Arguments>();
  add_bench_device(*app, a->device);
  app->add_option("--threads", a->threads, "CPU threads; torch's choice without it")->check(CLI::PositiveNumber);
  app->add_option("--json", a->json, "Writes the rows to this file");
  app->callback([app, a] { run(*a, command_line(*app)); });
}

}  // namespace strobe::cli
