// strobe bench nmt
#include <cstdio>
#include <memory>
#include <optional>

#include "bench/nmt.h"
#include "bench/nmt_report.h"
#include "bench/report.h"
#include "cli/commands.h"
#include "cli/nmt_options.h"
#include "cli/options.h"
#include "ops/attn_type.h"

namespace strobe::cli {
namespace {

/// Sizes of the model, by name.
struct Size {
  const char* name;
  int64_t d_model, num_heads, d_ff, layers;
};
constexpr Size kSizes[] = {{"tiny", 128, 4, 512, 2}, {"base", 512, 8, 2048, 6}};

struct Arguments {
  bench::NmtBenchOptions bench;
  RunOptions run;
  std::string attn_type, size = "tiny", task, json;
  int64_t repetitions = 0;
};

void set_size(nmt::ModelConfig& model, const std::string& name) {
  for (const Size& size : kSizes) {
    if (name != size.name) continue;
    model.d_model = size.d_model;
    model.num_heads = size.num_heads;
    model.d_ff = size.d_ff;
    model.encoder_layers = model.decoder_layers = size.layers;
  }
}

void run(Arguments a, const std::string& command) {
  bench::NmtBenchOptions& options = a.bench;
  options.workload.device = a.run.start();
  options.precision = a.run.precision_on(options.workload.device);
  set_size(options.workload.model, a.size);
  if (!a.attn_type.empty()) options.attn_types = {a.attn_type};
  if (!a.task.empty()) options.tasks = {a.task};
  if (a.repetitions > 0) options.budget = {a.repetitions, a.repetitions, 0.0};
  std::optional<bench::JsonFile> json;
  if (!a.json.empty()) json.emplace(a.json);

  std::fputs(bench::table_header(options).c_str(), stdout);
  std::fflush(stdout);
  std::vector<bench::NmtRow> all;
  const bench::NmtReport report = bench::bench_nmt(options, [&](const std::vector<bench::NmtRow>& rows) {
    std::fputs(bench::table(rows).c_str(), stdout);
    std::fflush(stdout);
    all.insert(all.end(), rows.begin(), rows.end());
  });
  if (json) json->write(bench::to_json(all, report, options, command));
}

void add_workload(CLI::App& app, Arguments& a) {
  bench::NmtWorkloadOptions& workload = a.bench.workload;
  app.add_option("--data", workload.data, "A folder that `nmt prepare` wrote; the built-in corpus without it");
  app.add_option("--lengths", workload.lengths, "Synthetic sentences of so many target tokens instead of a corpus")
      ->check(CLI::Range(int64_t{2}, int64_t{1000}));
  app.add_flag("--mixed", workload.mixed, "Of 2 up to so many tokens, in no order: batches with much padding")
      ->needs("--lengths");
  app.add_option("--batch-size", workload.batch_size, "Sentences")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--batches", workload.batches, "Batches of the corpus that are used, at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI::Option* size =
      app.add_option("--size", a.size, "The model: tiny is the demo's, 2+2 layers of 128; base has 6+6 layers of 512")
          ->transform(one_of({"tiny", "base"}))
          ->capture_default_str();
  app.add_option("--vocabulary", workload.model.source_vocabulary, "Pieces on either side, for --lengths")
      ->check(CLI::Range(int64_t{5}, int64_t{1'000'000}))
      ->each([&workload](const std::string& value) { workload.model.target_vocabulary = std::stoll(value); })
      ->capture_default_str();
  app.add_option("--dropout", workload.model.dropout, "Of the training")
      ->check(CLI::Range(0.0, 0.999))
      ->capture_default_str();
  app.add_option("--model", a.bench.model, "A checkpoint of `nmt train`; random weights without it")->excludes(size);
}

}  // namespace

void add_bench_nmt(CLI::App& parent) {
  CLI::App* app =
      parent.add_subcommand("nmt", "Training and decoding: our types beside nn.Transformer and CTranslate2");
  const auto a = std::make_shared<Arguments>();
  a->bench.workload.model.source_vocabulary = a->bench.workload.model.target_vocabulary = 8000;
  app->add_option("--task", a->task, "Both without it")->transform(one_of({"train", "decode"}));
  app->add_option("--attn_type,--attn-type", a->attn_type, "Our type to measure; all without it")
      ->transform(one_of({ops::kAttnTypeNames.begin(), ops::kAttnTypeNames.end()}));
  add_workload(*app, *a);
  app->add_option("--beam", a->bench.beam, "Hypotheses kept for each sentence; 1: greedy")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--repetitions", a->repetitions, "Passes through the batches; without it 2 s and at least 3")
      ->check(CLI::PositiveNumber);
  app->add_flag("--profile", a->bench.profile, "Also say where the time of our training goes");
  app->add_flag("--graphs", a->bench.workload.graphs, "Ours trains with CUDA graphs, on a GPU");
  app->add_option(
      "--peer-python", a->bench.peer_python,
      "A Python with torch, which trains nn.Transformer, and ctranslate2, which translates, for comparison");
  a->run.add_to(*app);
  app->add_option("--json", a->json, "Writes the rows to this file");
  app->callback([app, a] { run(*a, command_line(*app)); });
}

}  // namespace strobe::cli
