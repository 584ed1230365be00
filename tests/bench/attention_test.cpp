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
#include "bench/memory.h"
#include "bench/report.h"

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
  options.shapes = {{2, 2, 16, 32}};
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
}

TEST(BenchAttention, WhatDoesNotFitSaysOom) {
  AttentionBenchOptions options = small_options();
  options.shapes = {{64, 64, 60'000, 64}};  // 15 TB a score matrix, 63 GB an input
  for (const AttentionRow& row : bench(options)) EXPECT_EQ(row.status, Status::kOutOfMemory);
}

TEST(Report, JsonHasTheAgreedKeys) {
  AttentionBenchOptions options = small_options();
  options.dtype = at::kHalf;  // which the flash types refuse on the CPU
  const std::vector<AttentionRow> rows = bench(options);
  const nlohmann::ordered_json json = to_json(rows, options, "strobe bench attention");
  for (const char* key : {"what", "commit", "device", "torch", "command", "rows"})
    EXPECT_TRUE(json.contains(key)) << key;
  EXPECT_EQ(json["what"], "attention");
  const auto& measured = json["rows"][0];
  for (const char* key : {"case", "batch", "heads", "heads_k", "seqlen_q", "seqlen_k", "head_dim", "dtype", "causal",
                          "backend", "direction", "ms", "ms_min", "ms_max", "tflops", "peak_mib"}) {
    EXPECT_TRUE(measured.contains(key)) << key;
  }
  EXPECT_EQ(measured["backend"], "dotscale");
  EXPECT_EQ(measured["dtype"], "fp16");
  EXPECT_TRUE(measured["ms"].is_number());
  EXPECT_EQ(json["rows"][1]["backend"], "flash_attn");
  EXPECT_TRUE(json["rows"][1]["ms"].is_null());
  EXPECT_THAT(json["rows"][1]["error"].get<std::string>(), HasSubstr("float32 or bfloat16 on the CPU"));
  EXPECT_THAT(table(rows), HasSubstr("n/a"));
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
  EXPECT_THROW(JsonFile{file}, c10::Error);
}

}  // namespace
}  // namespace strobe::bench
