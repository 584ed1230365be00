// The program as a user meets it: statuses, help, and errors that name what is wrong, the wrong option before the
// missing file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <memory>
#include <string>

namespace {

using testing::HasSubstr;
using testing::Not;

struct Outcome {
  int status;
  std::string output;  // both streams
};

Outcome strobe(const std::string& arguments) {
  const std::string command = std::string(STROBE_PROGRAM) + " " + arguments + " 2>&1 </dev/null";
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return {-1, "popen failed"};
  std::string output;
  std::array<char, 4096> buffer;
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

void expect_usage_error(const std::string& arguments, const std::string& text) {
  const Outcome outcome = strobe(arguments);
  EXPECT_EQ(outcome.status, 2) << arguments << "\n" << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr(text)) << arguments;
}

TEST(Program, HelpOfEveryCommand) {
  for (const char* command :
       {"", "nmt", "nmt prepare", "nmt train", "nmt test", "nmt translate", "bench", "bench attention"}) {
    const Outcome outcome = strobe(std::string(command) + " --help");
    EXPECT_EQ(outcome.status, 0) << command << "\n" << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr("--help")) << command;
  }
  EXPECT_EQ(strobe("--version").status, 0);
}

TEST(Program, NamesTheNearestCommandAndOption) {
  expect_usage_error("nmt trian", "did you mean train?");
  expect_usage_error("nmt train --epoch 3 --data /missing", "unknown option --epoch; did you mean --epochs?");
  expect_usage_error("nmt translate --modle /missing/model.pth", "unknown option --modle; did you mean --model?");
  expect_usage_error("bench attention --seqlen=3", "did you mean --seq_len?");
}

TEST(Program, ReportsAWrongTypeBeforeAMissingFile) {
  expect_usage_error("nmt train --attn_type flash_atn --data /missing", "did you mean \"flash_attn\"?");
  expect_usage_error("nmt prepare --input /missing.tsv --vocab-type bpee", "did you mean \"bpe\"?");
  expect_usage_error("bench attention --attn_type dotscal", "did you mean \"dotscale\"?");
}

TEST(Program, WantsACommand) {
  EXPECT_EQ(strobe("").status, 2);
  EXPECT_EQ(strobe("nmt").status, 2);
}

TEST(Program, AMissingFileIsNamedAndIsNoUsageError) {
  for (const char* arguments : {"nmt train --data /missing/data --out /tmp/strobe-cli-test",
                                "nmt translate --model /missing/data", "nmt prepare --input /missing/data"}) {
    const Outcome outcome = strobe(arguments);
    EXPECT_EQ(outcome.status, 1) << arguments << "\n" << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr("/missing/data")) << arguments;
    EXPECT_THAT(outcome.output, Not(HasSubstr("terminate called"))) << arguments;
  }
}

}  // namespace
