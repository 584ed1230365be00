// The workload, the contenders and the reports of `strobe bench nmt`, and the talk with a peer; no times.
#include "bench/nmt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "bench/nmt_report.h"
#include "bench/peer.h"
#include "bench/temporary_folder.h"
#include "strobe/types.h"
#include "train/checkpoint.h"

namespace strobe::bench {
namespace {

using Status = ContenderResult::Status;
using testing::ElementsAre;
using testing::HasSubstr;

NmtBenchOptions small_options() {
  NmtBenchOptions options;
  nmt::ModelConfig& model = options.workload.model;
  model.source_vocabulary = model.target_vocabulary = 30;
  model.d_model = 16;
  model.num_heads = 2;
  model.d_ff = 32;
  model.encoder_layers = model.decoder_layers = 1;
  options.workload.lengths = {5};
  options.workload.batch_size = 3;
  options.budget = {.min_repetitions = 2, .max_repetitions = 2, .seconds = 0};
  return options;
}

std::vector<NmtRow> bench(const NmtBenchOptions& options) {
  std::vector<NmtRow> all;
  bench_nmt(options, [&](const std::vector<NmtRow>& rows) { all.insert(all.end(), rows.begin(), rows.end()); });
  return all;
}

TEST(NmtWorkloadTest, SyntheticSentencesHaveTheLengthAskedFor) {
  NmtWorkloadOptions options = small_options().workload;
  options.lengths = {5, 8};
  const NmtWorkload workload = nmt_workload(options);
  ASSERT_EQ(workload.train.size(), 2u);
  for (const NmtCase& content : workload.train) {
    for (const nmt::Batch& batch : content.batches) {
      EXPECT_EQ(batch.target_in.size(0), 3);
      EXPECT_EQ(batch.target_in.size(1), static_cast<int64_t>(content.length));
      EXPECT_EQ(batch.target_tokens, batch.target_in.numel());
    }
  }
  EXPECT_EQ(workload.train[1].length, 8.0);
}

TEST(NmtWorkloadTest, MixedSentencesHaveAllLengthsInNoOrder) {
  NmtWorkloadOptions options = small_options().workload;
  options.lengths = {40};
  options.batch_size = 50;
  options.mixed = true;
  const NmtWorkload workload = nmt_workload(options);
  EXPECT_EQ(workload.data, "mixed");
  for (const nmt::Batch& batch : workload.train.at(0).batches) {
    EXPECT_GE(batch.target_lengths.min().item<int32_t>(), 2);
    EXPECT_GT(batch.target_in.size(1), 30);
    EXPECT_LE(batch.target_in.size(1), 40);
    EXPECT_LT(batch.target_tokens, 2 * batch.target_in.numel() / 3);
  }
}

TEST(NmtWorkloadTest, TheBuiltInCorpusNeedsNoFolder) {
  NmtWorkloadOptions options;
  options.batches = 2;
  const NmtWorkload workload = nmt_workload(options);
  EXPECT_EQ(workload.data, "corpus");
  EXPECT_EQ(workload.model.target_vocabulary, 600);
  EXPECT_EQ(workload.train.at(0).batches.size(), 2u);
  EXPECT_EQ(workload.decode.at(0).batches.at(1).source.size(0), 128);
}

TEST(NmtWorkloadTest, TheFileHoldsWhatPeersNeed) {
  const NmtBenchOptions options = small_options();
  const NmtWorkload workload = nmt_workload(options.workload);
  const TemporaryFolder folder;
  write_workload(folder.path() / "w.pt", workload, nmt::Transformer(workload.model), {});
  const train::Dict content = train::load_checkpoint(folder.path() / "w.pt");
  for (const char* key : {"config", "model", "positions", "norm_eps", "bos", "eos", "unk", "beam", "lr", "precision"}) {
    EXPECT_TRUE(content.contains(std::string(key))) << key;
  }
  const train::Dict& decode = content.at(std::string("decode")).as_list().at(0).as_dict();
  EXPECT_EQ(decode.at(std::string("max_length")).as_int(), 5);
  EXPECT_EQ(decode.at(std::string("batches")).as_list().size(), 2u);
}

TEST(BenchNmt, HasARowForEachTaskAndType) {
  std::vector<std::string> names;
  for (const NmtRow& row : bench(small_options())) {
    names.push_back(row.task + " " + row.attn_type);
    EXPECT_EQ(row.status, Status::kMeasured) << row.why;
    EXPECT_EQ(row.ms.size(), 2u);
    EXPECT_EQ(row.tokens, 3 * 5);  // nothing ends early
    EXPECT_GT(row.peak_mib.value(), 0.0);
  }
  EXPECT_THAT(names, ElementsAre("train dotscale", "train flash_attn", "train imp_flash_attn", "decode dotscale",
                                 "decode flash_attn", "decode imp_flash_attn"));
}

TEST(BenchNmt, ProfilesTheTrainingWhereAsked) {
  NmtBenchOptions options = small_options();
  options.attn_types = {"imp_flash_attn"};
  options.profile = true;
  const std::vector<NmtRow> rows = bench(options);
  ASSERT_EQ(rows.size(), 2u);
  ASSERT_TRUE(rows[0].profile.has_value());
  const StepProfile& profile = *rows[0].profile;
  for (const double ms : {profile.attention, profile.matrix, profile.optimiser, profile.pointwise}) EXPECT_GT(ms, 0.0);
  EXPECT_GE(profile.wall, profile.attention + profile.matrix + profile.optimiser + profile.pointwise);
  ASSERT_FALSE(profile.kernels.empty());
  EXPECT_FALSE(rows[1].profile.has_value());
  EXPECT_THAT(table(rows), HasSubstr("ms under profiler"));
}

TEST(BenchNmt, APeerThatCannotStartSaysSoInItsRows) {
  NmtBenchOptions options = small_options();
  options.attn_types = {"imp_flash_attn"};
  options.peer_python = "/nowhere/python";
  const std::vector<NmtRow> rows = bench(options);
  ASSERT_EQ(rows.size(), 4u);
  for (const std::size_t peer : {1u, 3u}) {
    EXPECT_EQ(rows[peer].status, Status::kCannotRun);
    EXPECT_THAT(rows[peer].why, HasSubstr("/nowhere/python: No such file"));
  }
  EXPECT_EQ(rows[2].status, Status::kMeasured);
}

TEST(PeerTest, AnswersErrorsAndEnds) {
  const TemporaryFolder folder;
  const std::filesystem::path script = folder.path() / "echo.sh";
  std::ofstream(script) << "echo '{\"versions\": {\"echo\": \"1\"}}'\n"
                           "read -r line; echo \"$line\"\n"
                           "read -r line; echo '{\"error\": \"too much\"}'\n";
  Peer peer({"/bin/sh", script});
  EXPECT_EQ(peer.versions().at("echo"), "1");
  EXPECT_EQ(peer.ask({{"case", 3}}).at("case"), 3);
  EXPECT_THROW(
      {
        try {
          peer.ask({});
        } catch (const Error& error) {
          EXPECT_STREQ(error.what(), "peer echo.sh: too much");
          throw;
        }
      },
      Error);
  EXPECT_THROW(peer.ask({}), Error);
  EXPECT_THROW(Peer({"/bin/false"}), Error);
}

TEST(NmtReportTest, JsonHasTheAgreedKeys) {
  NmtBenchOptions options = small_options();
  options.attn_types = {"flash_attn"};
  std::vector<NmtRow> rows;
  const NmtReport report = bench_nmt(
      options, [&](const std::vector<NmtRow>& found) { rows.insert(rows.end(), found.begin(), found.end()); });
  rows.front().status = Status::kCannotRun;
  rows.front().why = "no such thing";
  const nlohmann::ordered_json json = to_json(rows, report, options, "strobe bench nmt");
  EXPECT_EQ(json["what"], "nmt");
  for (const char* key : {"commit", "device", "torch", "versions", "command", "model", "rows"})
    EXPECT_TRUE(json.contains(key)) << key;
  for (const auto& row : json["rows"]) {
    for (const char* key : {"task", "attn_type", "device", "batch", "length", "ms", "tokens_per_s", "peak_mib"})
      EXPECT_TRUE(row.contains(key)) << key;
  }
  EXPECT_TRUE(json["rows"][0]["ms"].is_null());
  EXPECT_EQ(json["rows"][0]["error"], "no such thing");
  EXPECT_TRUE(json["rows"][1]["ms"].is_number());
  EXPECT_THAT(table(rows), HasSubstr("no such thing"));
}

}  // namespace
}  // namespace strobe::bench
