// strobe bench attention
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "bench/attention.h"
#include "bench/attention_report.h"
#include "bench/attention_suites.h"
#include "bench/report.h"
#include "cli/bench_device.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "ops/attn_type.h"

namespace strobe::cli {
namespace {

constexpr int64_t kSeqlens[] = {200, 400, 800, 1000, 2000};  // FlashAttentionNMT's
constexpr int64_t kEpochsOnGpu = 1000;

struct Arguments {
  std::string attn_type, suite, device, dtype, json;
  std::vector<std::string> shapes;
  int64_t epochs = 0, seqlen = -1, threads = 0;
  int64_t batch = 32, heads = 8, head_dim = 64;
  bool causal = false;
};

/// "B,H,N,D", four whole numbers of at least 1; false for anything else.
bool parse_shape(const std::string& text, bench::AttentionShape& s) {
  int end = 0;
  const int read = std::sscanf(text.c_str(), "%ld,%ld,%ld,%ld%n", &s.batch, &s.num_heads, &s.seqlen, &s.head_dim, &end);
  return read == 4 && static_cast<std::size_t>(end) == text.size() && s.batch >= 1 && s.num_heads >= 1 &&
         s.seqlen >= 1 && s.head_dim >= 1;
}

std::string check_shape(const std::string& text) {
  bench::AttentionShape ignored;
  return parse_shape(text, ignored) ? "" : "expected B,H,N,D, four whole numbers of at least 1, found \"" + text + "\"";
}

std::string check_seqlen(const std::string& text) {
  std::size_t end = 0;
  int64_t value = 0;
  try {
    value = std::stoll(text, &end);
  } catch (const std::exception&) {  // no number, or one too large
  }
  return end == text.size() && (value == -1 || value >= 1)
             ? ""
             : "expected a length of at least 1, or -1, found \"" + text + "\"";
}

std::vector<bench::AttentionShape> shapes(const Arguments& a) {
  std::vector<bench::AttentionShape> result(a.shapes.size());
  for (std::size_t i = 0; i < result.size(); ++i) parse_shape(a.shapes[i], result[i]);
  if (!result.empty()) return result;
  if (a.seqlen != -1) return {{a.batch, a.heads, a.seqlen, a.head_dim}};
  for (const int64_t seqlen : kSeqlens) result.push_back({a.batch, a.heads, seqlen, a.head_dim});
  return result;
}

std::optional<at::ScalarType> dtype(const Arguments& a) {
  if (a.dtype.empty()) return std::nullopt;
  return a.dtype == "fp32" ? at::kFloat : a.dtype == "fp16" ? at::kHalf : at::kBFloat16;
}

bench::AttentionBenchOptions options_of(const Arguments& a, at::Device device) {
  bench::AttentionBenchOptions options;
  if (!a.suite.empty()) {
    options = bench::attention_suite(a.suite, device, dtype(a));
  } else {
    options.device = device;
    const at::ScalarType usual = device.is_cpu() ? at::kFloat : at::kBFloat16;
    for (const bench::AttentionShape& shape : shapes(a)) {
      options.cases.push_back({"", shape, dtype(a).value_or(usual), a.causal});
    }
    if (!device.is_cpu()) options.budget = {kEpochsOnGpu, kEpochsOnGpu, 0.0};
  }
  if (!a.attn_type.empty()) options.attn_type = a.attn_type;
  if (a.epochs > 0) options.budget = {a.epochs, a.epochs, 0.0};
  return options;
}

bench::Ceilings measured_ceilings(const bench::AttentionBenchOptions& options) {
  std::vector<at::ScalarType> dtypes;
  for (const bench::AttentionCase& each : options.cases) {
    if (std::find(dtypes.begin(), dtypes.end(), each.dtype) == dtypes.end()) dtypes.push_back(each.dtype);
  }
  return bench::ceilings(bench::bench_roofline(bench::quick_roofline_options(options.device, dtypes)));
}

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

void run(const Arguments& a, const std::string& command) {
  const at::Device device = bench_device(a.device);
  if (a.threads > 0) at::set_num_threads(static_cast<int>(a.threads));
  const bench::AttentionBenchOptions options = options_of(a, device);
  std::optional<bench::JsonFile> json;
  if (!a.json.empty()) json.emplace(a.json);

  const bench::Ceilings ceilings = measured_ceilings(options);
  print(bench::table_header(options, ceilings));
  std::vector<bench::AttentionRow> all;
  bench::bench_attention(options, [&](const std::vector<bench::AttentionRow>& rows) {
    print(bench::table(rows, ceilings));
    all.insert(all.end(), rows.begin(), rows.end());
  });
  if (a.suite == "memory") print(bench::memory_table(all));
  if (json) json->write(bench::to_json(all, ceilings, options, command));
}

}  // namespace

void add_bench_attention(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("attention", "Attention forward and backward: our types beside ATen's");
  const auto a = std::make_shared<Arguments>();
  app->add_option("--attn_type", a->attn_type, "Our type to measure; all without it")
      ->transform(one_of({ops::kAttnTypeNames.begin(), ops::kAttnTypeNames.end()}));
  app->add_option("--epochs", a->epochs,
                  "Repetitions of each row; without it the suite's, or 1000 on a GPU, 2 s and at least 3 on the CPU")
      ->check(CLI::PositiveNumber);
  CLI::Option* seqlen = app->add_option("--seq_len", a->seqlen, "Sequence length; -1: 200, 400, 800, 1000 and 2000")
                            ->check(check_seqlen)
                            ->capture_default_str();
  app->add_option("--batch", a->batch, "Batch size")->check(CLI::PositiveNumber)->capture_default_str();
  app->add_option("--heads", a->heads, "Heads")->check(CLI::PositiveNumber)->capture_default_str();
  app->add_option("--head_dim", a->head_dim, "Head dim")->check(CLI::PositiveNumber)->capture_default_str();
  CLI::Option* listed =
      app->add_option("--shapes", a->shapes, "Shapes B,H,N,D instead of the four options above")->check(check_shape);
  CLI::Option* causal = app->add_flag("--causal", a->causal, "Causal mask");
  app->add_option("--suite", a->suite,
                  "Cases by name instead of the five options above: design, the models' shapes; memory, peak memory by "
                  "length; million, a million tokens")
      ->transform(one_of({bench::kAttentionSuites.begin(), bench::kAttentionSuites.end()}))
      ->excludes(seqlen)
      ->excludes(listed)
      ->excludes(causal);
  app->add_option("--dtype", a->dtype, "bf16 on a GPU and fp32 on the CPU without it; of a suite: its own")
      ->transform(one_of({"fp32", "bf16", "fp16"}));
  add_bench_device(*app, a->device);
  app->add_option("--threads", a->threads, "CPU threads; torch's choice without it")->check(CLI::PositiveNumber);
  app->add_option("--json", a->json, "Writes the rows to this file");
  app->callback([app, a] { run(*a, command_line(*app)); });
}

}  // namespace strobe::cli
