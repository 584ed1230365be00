#include "train/run_record.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "strobe/types.h"
#include "train/environment.h"

namespace strobe::train {
namespace {

class RunRecordTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string read(const char* name) const {
    std::ostringstream text;
    text << std::ifstream(folder_ / name).rdbuf();
    return text.str();
  }
  nlohmann::json runs() const { return nlohmann::json::parse(read("run.json")).at("runs"); }

  std::filesystem::path folder_ = std::filesystem::path(::testing::TempDir()) / "strobe_run_record";
};

TEST_F(RunRecordTest, TellsCommandVersionsMachineAndFiles) {
  const std::filesystem::path data = folder_ / "data.json";
  std::ofstream(data) << "abc";
  write_run_record(folder_, {"strobe nmt train --seed 3", "seed = 3\n", "", {data}, at::kCPU});
  EXPECT_EQ(read("config.toml"), "seed = 3\n");
  ASSERT_EQ(runs().size(), 1U);
  const nlohmann::json run = runs()[0];
  EXPECT_EQ(run.at("command"), "strobe nmt train --seed 3");
  EXPECT_TRUE(run.at("resumed_from").is_null());
  EXPECT_EQ(run.at("versions").at("commit"), commit());
  EXPECT_EQ(run.at("versions").at("torch"), torch_version());
  EXPECT_EQ(run.at("files").at(data.string()).at("sha1"), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(run.at("files").at(data.string()).at("bytes"), 3);
  EXPECT_EQ(run.at("started").get<std::string>().size(), std::string("2026-01-01T00:00:00Z").size());
}

TEST_F(RunRecordTest, AResumedRunAddsItselfANewOneBeginsAnew) {
  write_run_record(folder_, {"first", "", "", {}, at::kCPU});
  write_run_record(folder_, {"second", "", "last.pt", {}, at::kCPU});
  ASSERT_EQ(runs().size(), 2U);
  EXPECT_EQ(runs()[0].at("command"), "first");
  EXPECT_EQ(runs()[1].at("resumed_from"), "last.pt");
  write_run_record(folder_, {"third", "", "", {}, at::kCPU});
  ASSERT_EQ(runs().size(), 1U);
}

TEST_F(RunRecordTest, AForeignFileIsNotOverwrittenByAResumedRun) {
  std::ofstream(folder_ / "run.json") << "[1, 2]";
  EXPECT_THROW(write_run_record(folder_, {"x", "", "last.pt", {}, at::kCPU}), Error);
  EXPECT_EQ(read("run.json"), "[1, 2]");
}

}  // namespace
}  // namespace strobe::train
