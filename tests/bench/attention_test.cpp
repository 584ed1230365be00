// The arithmetic, the turns, the memory measure and the reports of the benchmarks; no times.
#include "bench/attention.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <new>

#include "bench/attention_report.h"
#include "bench/attention_suites.h"
#include "bench/memory.h"
#include "bench/report.h"
#include "train/value.h"

namespace strobe::bench {
namespace {

namespace fs = std::filesystem;
using Status = ContenderResult::Status;
using testing::HasSubstr;

TEST(Flops, CountVisiblePairs) {
  const AttentionShape shape{2, 3, 10, 64};
  EXPECT_EQ(attention_flops(shape, false, "fwd"), 4.0 * 64 * 100 * 6);
  EXPECT_EQ(attention_flops(shape, true, "fwd"), 4.0 * 64 * 55 * 6);
  EXPECT_EQ(attention_flops(shape, false, "bwd"), 2.5 * attention_flops(shape, false, "fwd"));
}

TEST(Bytes, CountWhatMustBeReadAndWritten) {
  const AttentionShape shape{2, 3, 10, 64};
  constexpr double kElements = 2 * 3 * 10 * 64;
  EXPECT_EQ(attention_bytes(shape, at::kFloat, "fwd"), 4 * 4 * kElements);     // q, k, v, out
  EXPECT_EQ(attention_bytes(shape, at::kBFloat16, "bwd"), 2 * 8 * kElements);  // and their gradients
}

TEST(Median, OfOddAndEvenCounts) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_THROW(median({}), c10::Error);
}

TEST(PeakMemoryTest, CountsWhatIsHeldAtOnce) {
  constexpr int64_t kMiB = 1 << 20;
  const auto bytes = [](int64_t count) { return at::empty({count}, at::dtype(at::kByte)); };
  const at::Tensor before = bytes(7 * kMiB);
  PeakMemory peak(at::kCPU);
  EXPECT_EQ(peak.mib(), 0.0);
  const at::Tensor kept = bytes(2 * kMiB);
  bytes(3 * kMiB);
  bytes(1 * kMiB);
  EXPECT_EQ(peak.mib(), 5.0);
  peak.reset();
  EXPECT_EQ(peak.mib(), 2.0);
}

Contender contender(const std::string& name, std::function<void()> run) { return {name, {{"fwd", std::move(run)}}}; }

TEST(Measure, TakesTurnsAndKeepsToTheBudget) {
  std::string order;
  const auto results = measure({contender("a", [&] { order += 'a'; }), contender("b", [&] { order += 'b'; })},
                               {.min_repetitions = 3, .max_repetitions = 3, .seconds = 0}, at::kCPU);
  EXPECT_EQ(order, "aaabbbababab");  // three warm-ups each, then the turns
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].phases.at(0).ms.size(), 3u);
  EXPECT_EQ(results[1].status, Status::kMeasured);
}

TEST(Measure, ASlowOneLeavesTheRoundWhenItsSecondsAreUp) {
  const auto results = measure({contender("slow", [] { ::usleep(20'000); })},
                               {.min_repetitions = 2, .max_repetitions = 1000, .seconds = 0.05}, at::kCPU);
  EXPECT_LE(results[0].phases.at(0).ms.size(), 3u);
  EXPECT_GE(median(results[0].phases.at(0).ms), 20.0);
}

TEST(Measure, FailuresBecomeRowsAndOthersGoOn) {
  int calls = 0;
  const auto results = measure({contender("large", [] { throw std::bad_alloc(); }),
                                contender("unable", [] { TORCH_CHECK(false, "head_dim: expected 8\nmore"); }),
                                contender("able", [&] { ++calls; })},
                               {.min_repetitions = 2, .max_repetitions = 2, .seconds = 0}, at::kCPU);
  EXPECT_EQ(results[0].status, Status::kOutOfMemory);
  EXPECT_EQ(results[1].status, Status::kCannotRun);
  EXPECT_EQ(results[1].why, "head_dim: expected 8");
  EXPECT_EQ(results[2].status, Status::kMeasured);
  EXPECT_EQ(calls, 3 + 2);
}

std::vector<AttentionRow> bench(const AttentionBenchOptions& options) {
  std::vector<AttentionRow> all;
  bench_attention(options,
                  [&](const std::vector<AttentionRow>& rows) { all.insert(all.end(), rows.begin(), rows.end()); });
  return all;
}

AttentionBenchOptions small_options() {
  AttentionBenchOptions options;
  options.cases = {{"", {2, 2, 16, 32}, at::kFloat, false}};
  options.budget = {.min_repetitions = 2, .max_repetitions = 2, .seconds = 0};
  return options;
}

TEST(BenchAttention, HasARowForEachBackendAndDirection) {
  const std::vector<AttentionRow> rows = bench(small_options());
  std::vector<std::string> names;
  for (const AttentionRow& row : rows) {
    names.push_back(row.backend + " " + row.direction);
    EXPECT_EQ(row.status, Status::kMeasured) << row.why;
    EXPECT_EQ(row.ms.size(), 2u);
    EXPECT_GT(row.peak_mib, 0.0);
  }
  EXPECT_THAT(names, testing::ElementsAre("dotscale fwd", "flash_attn fwd", "imp_flash_attn fwd", "sdpa_flash fwd",
                                          "sdpa_math fwd", "dotscale bwd", "flash_attn bwd", "imp_flash_attn bwd",
                                          "sdpa_flash bwd", "sdpa_math bwd"));
}

TEST(BenchAttention, OneTypeBesideAtens) {
  AttentionBenchOptions options = small_options();
  options.attn_type = "flash_attn";
  EXPECT_EQ(bench(options).size(), 2u * 3u);
  options.peers = false;
  EXPECT_EQ(bench(options).size(), 2u);
}

TEST(BenchAttention, WhatDoesNotFitSaysOom) {
  AttentionBenchOptions options = small_options();
  options.cases.front().shape = {64, 64, 60'000, 64};  // 15 TB a score matrix, 63 GB an input
  for (const AttentionRow& row : bench(options)) EXPECT_EQ(row.status, Status::kOutOfMemory);
}

TEST(Report, JsonHasTheAgreedKeys) {
  AttentionBenchOptions options = small_options();
  options.cases = {{"text", {2, 2, 16, 32}, at::kHalf, false}};  // which the flash types refuse on the CPU
  const std::vector<AttentionRow> rows = bench(options);
  Ceilings ceilings;
  ceilings.bytes_per_s = 1e9;
  const nlohmann::ordered_json json = to_json(rows, ceilings, options, "strobe bench attention");
  for (const char* key :
       {"what", "commit", "device", "clocks_mhz", "torch", "versions", "command", "ceilings", "rows"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["what"], "attention");
  const auto& measured = json["rows"][0];
  for (const char* key : {"case",
                          "batch",
                          "heads",
                          "heads_k",
                          "seqlen_q",
                          "seqlen_k",
                          "head_dim",
                          "dtype",
                          "causal",
                          "backend",
                          "direction",
                          "ms",
                          "ms_min",
                          "ms_max",
                          "host_ms",
                          "tflops",
                          "gb_per_s",
                          "share_of_products",
                          "share_of_memory",
                          "peak_mib"}) {
    EXPECT_TRUE(measured.contains(key)) << key;
  }
  EXPECT_EQ(measured["case"], "text B2 H2 N16 D32 fp16");
  EXPECT_TRUE(measured["share_of_memory"].is_number());
  EXPECT_TRUE(measured["share_of_products"].is_null());  // no such ceiling
  EXPECT_EQ(measured["backend"], "dotscale");
  EXPECT_EQ(measured["dtype"], "fp16");
  EXPECT_TRUE(measured["ms"].is_number());
  EXPECT_EQ(json["rows"][1]["backend"], "flash_attn");
  EXPECT_TRUE(json["rows"][1]["ms"].is_null());
  EXPECT_THAT(json["rows"][1]["error"].get<std::string>(), HasSubstr("float32 or bfloat16 on the CPU"));
  EXPECT_THAT(table(rows, ceilings), HasSubstr("n/a"));
}

AttentionRow measured_row(const std::string& backend, int64_t seqlen, double ms, double peak_mib) {
  AttentionRow row;
  row.which = {"", {1, 8, seqlen, 64}, at::kFloat, false};
  row.backend = backend;
  row.direction = "fwd";
  row.ms = {ms};
  row.peak_mib = peak_mib;
  return row;
}

TEST(Report, SharesAreOfTheCeilings) {
  const AttentionRow row = measured_row("imp_flash_attn", 1000, 1.0, 0.0);
  Ceilings ceilings;
  ceilings.bytes_per_s = 2 * 4 * 1000 * 8 * 64 * 4 / 1e-3;  // twice what four fp32 tensors in 1 ms need
  ceilings.flops_per_s[at::kFloat] = 4 * (4 * 64 * 1e6 * 8) / 1e-3;
  EXPECT_DOUBLE_EQ(shares(row, ceilings).memory, 0.5);
  EXPECT_DOUBLE_EQ(shares(row, ceilings).products, 0.25);
  EXPECT_EQ(shares(row, Ceilings()).memory, 0.0);
  EXPECT_EQ(shares(row, Ceilings()).products, 0.0);
}

TEST(Report, MemoryTableTellsLinearFromQuadratic) {
  std::vector<AttentionRow> rows;
  for (const int64_t seqlen : {256, 1024, 4096}) {
    const auto n = static_cast<double>(seqlen);
    rows.push_back(measured_row("dotscale", seqlen, 1.0, n * n / 4096));
    // What does not grow counts for little at the longest length.
    rows.push_back(measured_row("imp_flash_attn", seqlen, 1.0, seqlen == 256 ? 100.0 : n / 16));
  }
  rows[4].status = Status::kOutOfMemory;  // dotscale at the last length
  EXPECT_NEAR(*memory_growth(rows, "dotscale"), 2.0, 1e-12);
  EXPECT_NEAR(*memory_growth(rows, "imp_flash_attn"), 1.0, 1e-12);
  EXPECT_FALSE(memory_growth(rows, "sdpa_math"));
  const std::string text = memory_table(rows);
  EXPECT_THAT(text, HasSubstr("N^2.00"));
  EXPECT_THAT(text, HasSubstr("N^1.00"));
  EXPECT_THAT(text, HasSubstr("256.0"));
}

TEST(Suites, DesignHasTheModelsShapes) {
  const AttentionBenchOptions options = attention_suite("design", at::Device(at::kCUDA, 0));
  ASSERT_EQ(options.cases.size(), 6u + 10u + 12u);
  EXPECT_EQ(case_name(options.cases[0]), "ViT-B/32 B450 H12 N50 D64 bf16");
  EXPECT_EQ(case_name(options.cases[4]), "ViT-H/14 B64 H16 N257 D80 bf16");
  EXPECT_EQ(case_name(options.cases[11]), "translation B32 H8 N200 D64 bf16 causal");
  for (std::size_t i = 16; i < options.cases.size(); ++i) {
    const AttentionShape& s = options.cases[i].shape;
    EXPECT_EQ(s.batch * s.seqlen, 16384);
    EXPECT_EQ(s.num_heads * s.head_dim, 2048);
  }
  EXPECT_EQ(case_name(options.cases.back()), "long B1 H16 N16384 D128 bf16 causal");
  EXPECT_EQ(attention_suite("design", at::Device(at::kCUDA, 0), at::kHalf).cases[0].dtype, at::kHalf);
}

TEST(Suites, OnTheCpuDesignIsSmallInBothDtypes) {
  const AttentionBenchOptions options = attention_suite("design", at::kCPU);
  double flops = 0;
  int64_t bf16 = 0;
  for (const AttentionCase& each : options.cases) {
    flops += attention_flops(each.shape, each.causal, "fwd");
    bf16 += each.dtype == at::kBFloat16;
  }
  EXPECT_EQ(bf16 * 2, static_cast<int64_t>(options.cases.size()));
  EXPECT_LT(flops, 2e10);
  EXPECT_EQ(attention_suite("design", at::kCPU, at::kFloat).cases.size() * 2, options.cases.size());
}

TEST(Suites, MemoryAndMillion) {
  const AttentionBenchOptions memory = attention_suite("memory", at::kCPU);
  ASSERT_EQ(memory.cases.size(), 4u);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_EQ(memory.cases[i].shape.seqlen, 4 * memory.cases[i - 1].shape.seqlen);
  const AttentionBenchOptions million = attention_suite("million", at::Device(at::kCUDA, 0));
  EXPECT_EQ(case_name(million.cases.at(0)), "million B1 H8 N1048576 D64 bf16");
  EXPECT_EQ(million.attn_type, "imp_flash_attn");
  EXPECT_FALSE(million.peers);
  EXPECT_THROW(attention_suite("disign", at::kCPU), c10::Error);
}

TEST(Report, JsonFileIsWholeOrAbsent) {
  const fs::path folder = fs::temp_directory_path() / ("strobe_bench_test" + std::to_string(::getpid()));
  fs::create_directory(folder);
  const fs::path file = folder / "rows.json";
  { const JsonFile unused(file); }
  EXPECT_TRUE(fs::is_empty(folder));
  JsonFile(file).write({{"what", "attention"}});
  EXPECT_EQ(nlohmann::json::parse(std::ifstream(file))["what"], "attention");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
  fs::remove_all(folder);
  EXPECT_THROW(JsonFile{file}, train::CheckpointError);
}

}  // namespace
}  // namespace strobe::bench
