// The ceilings: what their rows count, that they run, and how the flush before a timed call is sized.
#include "bench/roofline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/roofline_report.h"
#include "bench/stopwatch.h"

namespace strobe::bench {
namespace {

using Kind = RooflineRow::Kind;
using Status = ContenderResult::Status;
using testing::HasSubstr;

RooflineRow row(Kind kind, const std::string& name, at::ScalarType dtype, int64_t size, double ms) {
  RooflineRow result;
  result.kind = kind;
  result.name = name;
  result.dtype = dtype;
  result.size = size;
  result.ms = {ms};
  return result;
}

TEST(Roofline, CountsWhatIsReadAndWrittenAndTheOperations) {
  EXPECT_EQ(row(Kind::kMemory, "copy", at::kFloat, 1000, 1).work(), 2000);
  EXPECT_EQ(row(Kind::kMemory, "triad", at::kFloat, 1000, 1).work(), 3000);
  EXPECT_EQ(row(Kind::kProduct, "mm", at::kHalf, 10, 1).work(), 2000);
  EXPECT_DOUBLE_EQ(row(Kind::kProduct, "mm", at::kHalf, 10, 0.5).rate(), 4e6);
}

TEST(Roofline, CeilingsAreTheBestOfWhatWasMeasured) {
  std::vector<RooflineRow> rows = {
      row(Kind::kMemory, "copy", at::kFloat, 1000, 1), row(Kind::kMemory, "triad", at::kFloat, 1000, 1),
      row(Kind::kProduct, "mm", at::kFloat, 10, 2), row(Kind::kProduct, "linear", at::kFloat, 10, 1),
      row(Kind::kProduct, "mm", at::kBFloat16, 10, 1e-9)};
  rows.back().status = Status::kCannotRun;
  const Ceilings best = ceilings(rows);
  EXPECT_DOUBLE_EQ(best.bytes_per_s, 3e6);
  EXPECT_DOUBLE_EQ(best.flops(at::kFloat), 2e6);
  EXPECT_EQ(best.flops(at::kBFloat16), 0.0);
}

TEST(Roofline, RunsOnTheCpu) {
  RooflineOptions options = quick_roofline_options(at::kCPU, {at::kFloat, at::kBFloat16});
  options.bytes = 1 << 22;
  options.sizes = {64};
  options.budget = {2, 2, 0.0};
  const std::vector<RooflineRow> rows = bench_roofline(options);
  ASSERT_EQ(rows.size(), 2u + 2u * 2u);
  for (const RooflineRow& each : rows) {
    EXPECT_EQ(each.status, Status::kMeasured) << each.why;
    EXPECT_EQ(each.ms.size(), 2u);
    EXPECT_GT(each.rate(), 0.0);
  }
  const nlohmann::ordered_json json = to_json(rows, at::kCPU, "strobe bench roofline");
  for (const char* key : {"what", "commit", "device", "clocks_mhz", "torch", "command", "ceilings", "rows"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  for (const char* key : {"memory_gb_per_s", "fp32_tflops", "bf16_tflops"}) {
    EXPECT_GT(json["ceilings"].at(key).get<double>(), 0.0) << key;
  }
  EXPECT_EQ(json["rows"].size(), rows.size());
  EXPECT_THAT(table(rows), testing::AllOf(HasSubstr("copy"), HasSubstr("triad"), HasSubstr("ceilings: memory")));
}

TEST(Stopwatch, FlushesUntilTheHostHasQueuedTheCall) {
  EXPECT_EQ(flushes_to_cover(0.0, 0.06), 4);
  EXPECT_EQ(flushes_to_cover(0.6, 0.06), 20);   // twice the host's time
  EXPECT_EQ(flushes_to_cover(1e9, 0.06), 256);  // within reason
  EXPECT_EQ(flushes_to_cover(1.0, 0.0), 4);     // a clock that said nothing
}

TEST(Stopwatch, OnTheCpuHostAndDeviceAreOne) {
  Stopwatch stopwatch(at::kCPU);
  stopwatch.start(0.0);
  stopwatch.stop();
  const auto times = stopwatch.collect();
  ASSERT_EQ(times.size(), 1u);
  EXPECT_EQ(times[0].ms, times[0].host_ms);
  EXPECT_TRUE(stopwatch.collect().empty());
}

}  // namespace
}  // namespace strobe::bench
