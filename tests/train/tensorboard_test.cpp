#include "train/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <map>

#include "strobe/types.h"
#include "tests/temporary_folder.h"
#include "tests/train/tiny_task.h"

namespace strobe::train {
namespace {

using ::testing::HasSubstr;

template <typename T>
T take(std::string_view& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes.remove_prefix(sizeof(T));
  return value;
}

uint32_t masked(std::string_view data) {
  const uint32_t crc = crc32c(data);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

/// The contents of the TFRecords of a file; checks lengths and checksums.
std::vector<std::string> records(const std::string& text) {
  std::string_view rest = text;
  std::vector<std::string> found;
  while (!rest.empty()) {
    const std::string_view head = rest.substr(0, 8);
    const auto length = take<uint64_t>(rest);
    EXPECT_EQ(take<uint32_t>(rest), masked(head));
    found.emplace_back(rest.substr(0, length));
    rest.remove_prefix(length);
    EXPECT_EQ(take<uint32_t>(rest), masked(found.back()));
  }
  return found;
}

std::string only_file(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  EXPECT_EQ(files.size(), 1u);
  EXPECT_THAT(files.front().filename().string(), HasSubstr("events.out.tfevents."));
  return read_text(files.front());
}

TEST(Tensorboard, ChecksumsAreCastagnoli) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(Tensorboard, WritesEvents) {
  const TemporaryFolder folder;
  {
    EventFile events(folder.path());
    events.scalar("loss", 300, 0.5);
  }
  const std::vector<std::string> found = records(only_file(folder.path()));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].substr(9),
            "\x1a\x0d"
            "brain.Event:2");  // after the wall time: field 3, 13 bytes
  EXPECT_EQ(found[0][0], '\x09');
  // step 300 = 0xac 0x02; summary > value > tag "loss", simple_value 0.5 = 0x3f000000
  EXPECT_EQ(found[1].substr(9), std::string("\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\0\0\0\x3f", 18));
}

TEST(Tensorboard, RestartIsASessionStart) {
  const TemporaryFolder folder;
  EventFile(folder.path()).restart(3);
  // step 3; session_log, field 7: status, field 1: START, 1
  EXPECT_EQ(records(only_file(folder.path())).at(1).substr(9), "\x10\x03\x3a\x02\x08\x01");
}

TEST(Tensorboard, TrainingDrawsCurves) {
  const TemporaryFolder folder;
  TinyTask task;
  TrainerOptions options = tiny_options(folder.path());
  options.epochs = 7;  // 56 updates
  train_quietly(task, options);
  std::map<std::string, int> points;
  for (const std::string& record : records(only_file(folder / "tensorboard"))) {
    for (const char* tag : {"train/loss", "train/lr", "epoch/loss", "epoch/target_tokens_per_second", "epoch/padding",
                            "epoch/peak_memory_mib", "dev/loss", "dev/score"}) {
      points[tag] += record.find(tag) != std::string::npos;
    }
  }
  for (const auto& [tag, count] : points) EXPECT_EQ(count, tag.starts_with("train/") ? 1 : 7) << tag;
}

TEST(Tensorboard, CanBeTurnedOff) {
  const TemporaryFolder folder;
  TinyTask task;
  TrainerOptions options = tiny_options(folder.path());
  options.tensorboard = false;
  train_quietly(task, options);
  EXPECT_FALSE(std::filesystem::exists(folder / "tensorboard"));
}

TEST(Tensorboard, NamesTheFileThatCannotBeWritten) {
  try {
    EventFile events("/proc/strobe");
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("/proc/strobe"));
  }
}

}  // namespace
}  // namespace strobe::train
