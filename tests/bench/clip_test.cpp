// The workload, the contenders and the reports of `strobe bench clip`; no times.
#include "bench/clip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/clip_report.h"
#include "bench/temporary_folder.h"
#include "strobe/types.h"
#include "train/checkpoint.h"

namespace strobe::bench {
namespace {

using Status = ContenderResult::Status;
using testing::AllOf;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::Le;

ClipBenchOptions tiny_options() {
  ClipBenchOptions options;
  options.sizes = {"tiny"};
  options.batch = 3;
  options.settings.precision = train::Precision::kFp32;
  options.repetitions = 2;
  options.steps = 1;
  return options;
}

std::vector<ClipRow> bench(const ClipBenchOptions& options) {
  std::vector<ClipRow> all;
  bench_clip(options, [&](const ClipRow& row) { all.push_back(row); });
  return all;
}

TEST(ClipWorkloadTest, HasTheSizesOfThePublishedTable) {
  std::vector<std::string> names;
  std::vector<int64_t> batches;
  for (const ClipSize& size : clip_sizes()) {
    names.push_back(size.name);
    batches.push_back(size.batch);
  }
  EXPECT_THAT(names, ElementsAre("RN50", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px", "ViT-H/14", "tiny"));
  EXPECT_THAT(batches, ElementsAre(1200, 450, 128, 40, 64, 8));
  EXPECT_THROW(clip_size("ViT-B-16"), Error);
}

TEST(ClipWorkloadTest, CaptionsHave8To29TokensAndPadding) {
  ClipSize size = clip_size("tiny");
  size.batch = 200;
  const ClipBatch batch = clip_batch(size, 1, at::kCPU);
  EXPECT_THAT(batch.images.sizes(), ElementsAre(200, 96, 96, 3));
  ASSERT_THAT(batch.ids.sizes(), ElementsAre(200, 52));
  for (int64_t i = 0; i < 200; ++i) {
    const auto length = batch.lengths[i].item<int64_t>();
    ASSERT_THAT(length, AllOf(Ge(8), Le(29)));
    EXPECT_EQ(batch.ids[i].ne(0).sum().item<int64_t>(), length);
    EXPECT_EQ(batch.ids[i][0].item<int64_t>(), 101);
    EXPECT_EQ(batch.ids[i][length - 1].item<int64_t>(), 102);
  }
  EXPECT_TRUE(batch.ids.equal(clip_batch(size, 1, at::kCPU).ids));
  EXPECT_FALSE(batch.ids.equal(clip_batch(size, 2, at::kCPU).ids));
}

TEST(ClipWorkloadTest, TheFileHoldsWhatPeersNeed) {
  const TemporaryFolder folder;
  ClipSize size = clip_size("tiny");
  size.batch = 2;
  write_clip_workload(folder.path() / "w.pt", size, clip_batch(size, 1, at::kCPU), {}, {});
  const train::Dict content = train::load_checkpoint(folder.path() / "w.pt");
  for (const char* key : {"vision", "text", "model", "images", "ids", "precision", "lr"}) {
    EXPECT_TRUE(content.contains(std::string(key))) << key;
  }
  const train::List& mean = content.at(std::string("mean")).as_list();
  const train::List& deviation = content.at(std::string("std")).as_list();
  ASSERT_EQ(mean.size(), 3u);
  EXPECT_NEAR(mean[0].as_double(), 0.48145466, 1e-6);
  EXPECT_NEAR(deviation[2].as_double(), 0.27577711, 1e-6);
}

TEST(BenchClip, HasARowForEachTypeAndItsProfile) {
  ClipBenchOptions options = tiny_options();
  options.attn_types = {"dotscale", "flash_attn", "imp_flash_attn"};
  options.profile = true;
  std::vector<std::string> names;
  for (const ClipRow& row : bench(options)) {
    names.push_back(row.attn_type);
    ASSERT_EQ(row.status, Status::kMeasured) << row.why;
    EXPECT_EQ(row.batch, 3);
    EXPECT_EQ(row.ms.size(), 2u);
    EXPECT_GT(row.peak_gib.value(), 0.0);
    const StepProfile& profile = row.profile.value();
    for (const double share : {profile.attention, profile.matrix, profile.optimiser, profile.pointwise}) {
      EXPECT_GT(share, 0.0);
      EXPECT_LT(share, profile.wall);
    }
    EXPECT_LE(profile.attention + profile.matrix + profile.optimiser + profile.pointwise, profile.wall);
    ASSERT_GE(profile.kernels.size(), 2u);
    EXPECT_GE(profile.kernels[0].ms, profile.kernels[1].ms);
    EXPECT_GE(profile.kernels[0].calls, 1.0);
  }
  EXPECT_THAT(names, ElementsAre("dotscale", "flash_attn", "imp_flash_attn"));
}

TEST(BenchClip, APeerThatCannotStartSaysSoInItsRow) {
  ClipBenchOptions options = tiny_options();
  options.attn_types = {"imp_flash_attn"};
  options.peer_python = "/nowhere/python";
  const std::vector<ClipRow> rows = bench(options);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].status, Status::kMeasured);
  for (const std::size_t peer : {1u, 2u}) {
    EXPECT_EQ(rows[peer].status, Status::kCannotRun);
    EXPECT_THAT(rows[peer].why, HasSubstr("/nowhere/python: No such file"));
  }
}

TEST(StepProfileTest, FilesOperatorsByWhatTheyBelongTo) {
  EXPECT_EQ(share_of({"strobe::dotscale_forward", "aten::bmm"}), Share::kAttention);
  EXPECT_EQ(share_of({"CppNode<strobe::ops::AttentionFunction>", "aten::copy_"}), Share::kAttention);
  EXPECT_EQ(share_of({"CppNode<strobe::nn::LinearFunction>", "aten::mm"}), Share::kMatrix);
  EXPECT_EQ(share_of({"aten::linear", "aten::addmm"}), Share::kMatrix);
  EXPECT_EQ(share_of({"aten::_fused_adamw_"}), Share::kOptimiser);
  EXPECT_EQ(share_of({"aten::_foreach_norm", "aten::mul"}), Share::kOptimiser);
  EXPECT_EQ(share_of({"aten::linear", "aten::copy_"}), Share::kPointwise);
  EXPECT_EQ(share_of({}), Share::kPointwise);
}

TEST(ClipReportTest, JsonHasTheAgreedKeysAndTheTableTheSpeedUp) {
  ClipBenchOptions options = tiny_options();
  std::vector<ClipRow> rows(3);
  rows[0].attn_type = "dotscale";
  rows[0].ms = {6.0, 5.0, 7.0};
  rows[0].peak_gib = 2.5;
  rows[1].attn_type = "imp_flash_attn";
  rows[1].ms = {4.0};
  rows[1].profile = StepProfile{.attention = 1.0, .wall = 4.0};
  rows[2].attn_type = "cn_clip";
  rows[2].status = Status::kCannotRun;
  rows[2].why = "no such thing";
  for (ClipRow& row : rows) row.size = "tiny";
  const nlohmann::ordered_json json = to_json(rows, {{"cn_clip", "1"}}, options, "strobe bench clip");
  EXPECT_EQ(json["what"], "clip");
  for (const char* key : {"commit", "device", "torch", "versions", "command", "precision", "rows"})
    EXPECT_TRUE(json.contains(key)) << key;
  for (const auto& row : json["rows"]) {
    for (const char* key : {"size", "batch", "gpus", "attn_type", "ms", "peak_gib"})
      EXPECT_TRUE(row.contains(key)) << key;
  }
  EXPECT_EQ(json["rows"][0]["ms"], 6.0);
  EXPECT_EQ(json["rows"][1]["profile"]["attention"], 1.0);
  EXPECT_TRUE(json["rows"][2]["ms"].is_null());
  EXPECT_EQ(json["rows"][2]["error"], "no such thing");
  EXPECT_THAT(table(rows), AllOf(HasSubstr("1.50x"), HasSubstr("no such thing")));
}

TEST(ClipReportTest, EfficiencyIsAgainstOneGpuAndTheSpeedUpAgainstAsMany) {
  std::vector<ClipRow> rows;
  for (const auto& [attn_type, gpus, ms] : {std::tuple("dotscale", 1, 9.0),
                                            {"dotscale", 8, 10.0},
                                            {"imp_flash_attn", 1, 4.75},
                                            {"imp_flash_attn", 8, 5.0}}) {
    ClipRow row;
    row.size = "tiny";
    row.gpus = gpus;
    row.attn_type = attn_type;
    row.ms = {ms};
    rows.push_back(row);
  }
  const nlohmann::ordered_json json = to_json(rows, {}, tiny_options(), "strobe bench clip --gpus 8");
  EXPECT_FALSE(json["rows"][0].contains("efficiency"));
  EXPECT_EQ(json["rows"][1]["efficiency"], 0.9);
  EXPECT_EQ(json["rows"][3]["efficiency"], 0.95);
  EXPECT_THAT(table(rows), AllOf(HasSubstr("2.00x"), HasSubstr("90.0%"), HasSubstr("95.0%")));
}

}  // namespace
}  // namespace strobe::bench
