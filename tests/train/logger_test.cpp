#include "train/logger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "strobe/types.h"
#include "tests/temporary_folder.h"
#include "tests/train/tiny_task.h"
#include "train/progress.h"

namespace strobe::train {
namespace {

TEST(Logger, FileHasTimeAndLevelConsoleOnlyTheMessage) {
  const TemporaryFolder folder;
  int hooks = 0;
  ::testing::internal::CaptureStdout();
  {
    Logger logger(folder / "sub" / "train.log");
    logger.before_message([&] { ++hooks; });
    logger.info("Epoch: 1 {} %s");
    logger.warning("careful");
    logger.error("wrong");
  }
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "Epoch: 1 {} %s\ncareful\nwrong\n");
  EXPECT_EQ(hooks, 3);
  const std::string time = R"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})";
  const std::regex lines(time + R"(:INFO: Epoch: 1 \{\} %s\n)" + time + R"(:WARNING: careful\n)" + time +
                         R"(:ERROR: wrong\n)");
  const std::string text = read_text(folder / "sub" / "train.log");
  EXPECT_TRUE(std::regex_match(text, lines)) << text;
}

TEST(Logger, TruncatesOrAppends) {
  const TemporaryFolder folder;
  const auto log = [&](Logger::Mode mode, const char* text) { Logger(folder / "log", mode, false).info(text); };
  log(Logger::Mode::kTruncate, "one");
  log(Logger::Mode::kAppend, "two");
  EXPECT_THAT(read_text(folder / "log"), ::testing::AllOf(::testing::HasSubstr("one"), ::testing::HasSubstr("two")));
  log(Logger::Mode::kTruncate, "three");
  EXPECT_THAT(read_text(folder / "log"), ::testing::Not(::testing::HasSubstr("one")));
}

TEST(Logger, WritesInAnotherStyle) {
  const TemporaryFolder folder;
  const Logger::Style style{.file = "%* | %v", .console = "%* | Rank 0 | %v", .to_stderr = true, .debug = true};
  ::testing::internal::CaptureStderr();
  {
    Logger logger(folder / "log", Logger::Mode::kTruncate, /*console=*/true, style);
    logger.debug("much");
    logger.warning("little");
    Logger("", Logger::Mode::kTruncate, /*console=*/true, {.console = "%v", .to_stderr = true}).debug("nothing");
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "DEBUG | Rank 0 | much\nWARNING | Rank 0 | little\n");
  EXPECT_EQ(read_text(folder / "log"), "DEBUG | much\nWARNING | little\n");
}

TEST(Logger, NamesTheFileThatCannotBeWritten) {
  const TemporaryFolder folder;
  Logger(folder / "file", Logger::Mode::kTruncate, false).info("x");
  try {
    Logger logger(folder / "file" / "train.log");
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("file/train.log"));
  }
}

TEST(Progress, SaysWhereTheEpochStands) {
  ProgressState state;
  state.epoch = 3;
  state.epochs = 40;
  state.batch = 50;
  state.batches = 200;
  state.loss = 1.25;
  state.lr = 4.419e-4;
  state.tokens_per_second = 12345.6;
  state.padding = 0.0712;
  state.seconds_left = 83;
  EXPECT_EQ(format_progress(state),
            "epoch 3/40  50/200  loss 1.2500  lr 0.000442  12346 tokens/s  padding 7.1 %  left 1:23");
  EXPECT_EQ(format_duration(3723), "1:02:03");
}

TEST(Progress, WritesWholeLinesWhereThereIsNoTerminal) {
  ::testing::internal::CaptureStderr();
  {
    ProgressLine line;
    EXPECT_FALSE(line.due());
    line.show(ProgressState{});
    line.clear();
  }
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(text.starts_with("epoch 0/0") && text.ends_with("\n")) << text;
  EXPECT_EQ(text.find('\033'), std::string::npos);
}

}  // namespace
}  // namespace strobe::train
